"""How much each caller may use: requests and tokens a minute, calls at once, and USD a day and a month."""
