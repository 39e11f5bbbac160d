#!/usr/bin/env lua5.4
-- usage: count.lua NUMBER
local text = arg[1]
if not text:match("^%d%d?%d?%d?$") then
  io.stderr:write("lua: '", text, "' is no number\n")
  os.exit(2)
end
io.stdout:setvbuf("line")
for i = 1, tonumber(text) do
  print("lua: " .. i)
end
