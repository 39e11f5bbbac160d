"""Floor 1: a plan entry becomes a confined process.

`ladder` is the table of the steps a child takes, `launch` starts it and holds it at its exec,
`measure` reads what it really got and compares, `describe` says all of it in words.
"""
