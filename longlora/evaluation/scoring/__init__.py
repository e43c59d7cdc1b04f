"""Published measures of an answer against the truth, each a pure function of two texts with a result from 0 to 1.

Written from the descriptions in the papers that each module names; where no paper spells a rule out, the module does.
"""
