"""``python tests/record_histories.py`` plays the programs that have no history yet, and writes it down."""

from programs import HISTORIES, RECORDINGS

for name, play in RECORDINGS.items():
    path = HISTORIES / f"{name}.json"
    if not path.exists():
        play().save(path)
        print(f"recorded {path}")
