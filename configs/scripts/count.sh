#!/bin/bash
# usage: count.sh NUMBER
if [[ ! $1 =~ ^[0-9]{1,4}$ ]]; then
    echo "bash: '$1' is no number" >&2
    exit 2
fi
for ((i = 1; i <= 10#$1; i++)); do
    echo "bash: $i"
done
