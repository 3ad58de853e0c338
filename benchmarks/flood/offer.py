"""What a flood's generator offers: so many SYNs to each honest frame, so many requests and new connections a second."""

from dataclasses import dataclass, replace

FRAMES_A_CONNECTION = 4  # SYN; ACK with the request; FIN; the last ACK


@dataclass(frozen=True)
class Offer:
    """`ratio` SYNs to a frame; requests/s on open connections (0: as fast as they are answered); new connections/s."""

    ratio: int
    requests: float
    opens: float

    @classmethod
    def parse(cls, text: str) -> "Offer":
        """RATIO:REQUESTS:OPENS."""
        ratio, requests, opens = text.split(":")
        return cls(int(ratio), float(requests), float(opens))

    def __str__(self) -> str:
        return f"{self.ratio}:{self.requests:g}:{self.opens:g}"

    @property
    def quiet(self) -> "Offer":
        """The same without a flood."""
        return replace(self, ratio=0)

    @property
    def syns_a_second(self) -> float:
        """At the pace of `requests`; 0 if they have none."""
        return self.ratio * (self.requests + FRAMES_A_CONNECTION * self.opens) if self.requests else 0.0
