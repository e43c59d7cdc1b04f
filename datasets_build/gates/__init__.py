"""Gates: what rows and documents have to pass before they are published, by name.

scan.py        looks at each row once, in the process that built it; what it found is a unit
keeper.py      decides by the levels: stops, leaves out, or reports
near.py        near duplicates (MinHash)            decontaminate.py  passages of evaluation files
language.py    the languages that are wanted        pii.py            personal data
base.py        names, levels, findings               settings.py       the section dataset.gates
rows.py        schema, whole answers, evidence      leakage.py        no document in both splits
"""
