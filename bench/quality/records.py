"""JSON lines of measured rows: read, asked, appended."""
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KEY = ("model", "who", "setting", "text", "n_windows", "calibration")


def model_of(source: pathlib.Path) -> str:
    """The name in data/models.json of a file in it; the file's stem otherwise."""
    table = ROOT / "data/models.json"
    for model in json.loads(table.read_text()) if table.exists() else []:
        if model["file"] == source.name:
            return model["name"]
    return source.name.removesuffix(".gguf")


def read(path: pathlib.Path) -> list[dict]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


class Store:
    """Appends rows as they come, so that what was measured survives the run."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.keys = {self._key(row) for row in read(path)}

    @staticmethod
    def _key(row: dict) -> tuple:
        return tuple(row.get(k) for k in KEY)

    def has(self, key: dict) -> bool:
        return self._key(key) in self.keys

    def add(self, row: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        self.keys.add(self._key(row))
