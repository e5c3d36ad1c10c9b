"""The privileged side of fdbroker: it decides by the policy, opens, and passes what it opened.

`broker.embed` makes a broker of the running program; `fdbroker serve` and `fdbroker run` start one.
"""
