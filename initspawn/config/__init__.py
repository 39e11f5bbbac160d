"""Configuration files become plans: load, check, expand, compile. Never imported at boot.

`load` reads JSON or YAML into plain data with positions, `check` holds it against `schema` and finds
every mistake, `compile` looks up and works out the rest and returns a `plan.Plan`.
"""
