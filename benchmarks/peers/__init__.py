"""The servers that people use today, each in an environment of its own, each set up as its documentation advises."""
