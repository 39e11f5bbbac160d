#!/usr/bin/env tclsh
# usage: count.tcl NUMBER
set text [lindex $argv 0]
if {![regexp {^[0-9]{1,4}$} $text]} {
    puts stderr "tcl: '$text' is no number"
    exit 2
}
fconfigure stdout -buffering line
scan $text %d count
for {set i 1} {$i <= $count} {incr i} {
    puts "tcl: $i"
}
