"""What /metrics tells, read strictly (Prometheus text format 0.0.4)."""

import re
from collections.abc import Mapping

SAMPLE = re.compile(r'([a-zA-Z_]\w*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\]|\\[\\"n])*",?)*)\})? (\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\[\\"n])*)"')
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

type Labels = frozenset[tuple[str, str]]


class Numbers:
    """The samples of a text, each under its name and labels."""

    def __init__(self, text: str) -> None:
        self.kinds: dict[str, str] = {}
        self.meanings: dict[str, str] = {}
        self.samples: dict[tuple[str, Labels], float] = {}
        assert text.endswith("\n")
        family = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split()[2]
                assert family not in self.meanings, line
                self.meanings[family] = line.split(maxsplit=3)[3]
            elif line.startswith("# TYPE "):
                assert line.split()[2] == family, line
                self.kinds[family] = line.split()[3]
            else:
                self._add(line, family)
        self._check_histograms()

    def _add(self, line: str, family: str) -> None:
        match = SAMPLE.fullmatch(line)
        assert match is not None, line
        assert match[1].removeprefix(family) in SUFFIXES[self.kinds[family]], line
        labels = LABEL.findall(match[2] or "")
        assert len(dict(labels)) == len(labels), line
        key = (match[1], frozenset(labels))
        assert key not in self.samples, line
        self.samples[key] = float(match[3])

    def _check_histograms(self) -> None:
        series: dict[tuple[str, Labels], list[tuple[float, float]]] = {}
        for (name, labels), value in self.samples.items():
            bounds = [float(text) for label, text in labels if label == "le"]
            if bounds:
                others = frozenset(pair for pair in labels if pair[0] != "le")
                series.setdefault((name.removesuffix("_bucket"), others), []).append((bounds[0], value))
        for (name, labels), buckets in series.items():
            counts = [count for _, count in sorted(buckets)]
            assert counts == sorted(counts), (name, labels)
            assert max(buckets) == (float("inf"), self.samples[f"{name}_count", labels]), (name, labels)
            assert (f"{name}_sum", labels) in self.samples

    def labels(self, family: str) -> set[str]:
        """Return the names of the labels of a family."""
        names = {family + suffix for suffix in SUFFIXES[self.kinds[family]]}
        return {label for name, labels in self.samples if name in names for label, _ in labels} - {"le"}

    def sum(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """Return the sum of the samples with this name that have these labels, and maybe more."""
        wanted = set((labels or {}).items())
        found = [value for (other, given), value in self.samples.items() if other == name and wanted <= given]
        return sum(found)

    def requests(self, method: str, route: str, status: int | str) -> int:
        """Return how many requests were answered with a status."""
        labels = {"http_request_method": method, "http_route": route, "http_response_status_code": str(status)}
        return int(self.sum("http_server_request_duration_seconds_count", labels))

    @property
    def all_requests(self) -> int:
        """How many requests were answered at all."""
        return int(self.sum("http_server_request_duration_seconds_count"))
