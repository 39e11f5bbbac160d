#!/usr/bin/env node
// usage: count.js NUMBER
"use strict";

const text = process.argv[2];
if (/^[0-9]{1,4}$/.test(text)) {
  for (let i = 1; i <= Number(text); i++) {
    console.log(`node: ${i}`);
  }
} else {
  console.error(`node: '${text}' is no number`);
  process.exitCode = 2; // not process.exit(): what was written would be cut off
}
