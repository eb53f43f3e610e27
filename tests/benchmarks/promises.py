"""What each benchmark prints at least and at most, and how it is run in seconds."""

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

MLP = "MLP 64-32-10"


class Strict(Struct, forbid_unknown_fields=True, frozen=True):
    pass


class Timing(Strict):
    median: float
    spread: tuple[float, float]
    repeats: int


class Machine(Strict):
    processor: str
    cores: int
    memory_gib: float | None
    load_1min: float | None
    system: str
    python: str
    packages: dict[str, str]
    passes: Literal["compiled", "numpy"]


class Idle(Strict):
    connections: int
    connects_per_s: float
    server_cpu_ms_per_connect: float
    server_kib_per_connection: float
    server_rss_mib: float
    server_cpu_share_idle: float


class Turn(Strict):
    members: int
    round_ms: Timing


class Relay(Strict):
    payload_bytes: int
    relayed_per_s: float
    server_cpu_us_per_message: float
    there_and_back_ms: Timing


class Signaling(Strict):
    idle: Idle
    turn_of_5: Turn
    relay_1k: Relay
    relay_16k: Relay


class Link(Strict):
    setup_ms: Timing
    round_trip_ms: Timing
    small_sender_cpu_us: Timing
    small_receiver_cpu_us: Timing
    mb_per_s: Timing
    sender_cpu_ms_per_mb: Timing
    receiver_cpu_ms_per_mb: Timing
    receiver_peak_mib: float


class Links(Strict):
    library_transports: Link
    faster_transports: Link


class StepTimes(Strict):
    eager: Timing
    plan_step_by_step: Timing
    plan_loop: Timing


class Step(Strict):
    seconds_per_step: StepTimes
    eager_over_loop: float


class WebStepTimes(Strict):
    onnxruntime: Timing
    onnxruntime_web: Timing


class WebStep(Strict):
    seconds_per_step: WebStepTimes
    web_over_native: float
    largest_difference: float


class SecaggRound(Strict):
    n: int
    d: int
    ring_bits: int
    dropouts: int
    when: Literal["never", "before", "after"]
    cpu_ms: Timing
    megabytes: Timing
    target: dict[str, float] | None = None


class SecaggMemory(Strict):
    n: int
    d: int
    bytes_per_peer: int
    float_vectors: float


class Secagg(Strict):
    rounds: list[SecaggRound]
    memory: SecaggMemory


class Applying(Strict):
    model_bytes: int
    apply_s: Timing
    digest_s: Timing
    times_fedavg: float


class ServerOptimizers(Strict):
    fedavg: Applying
    fedavgm: Applying
    fedadam: Applying
    fedyogi: Applying


class Level(Strict):
    cohorts: int
    peers: int
    largest_cohort: int
    cpu_ms_per_peer: float
    kilobytes_per_peer: float
    kilobytes_most: float


class AllLevels(Strict):
    cpu_ms_per_peer: float
    kilobytes_per_peer: float


class Population(Strict):
    peers: int
    levels: list[Level]
    all_levels: AllLevels


class Stages(Strict):
    link: Timing
    train: Timing
    mask: Timing
    exchange: Timing
    unmask: Timing
    total: Timing


class Processor(Strict):
    node: float
    signaling: float


class Rounds(Strict):
    parameters: int
    seconds: Stages
    seconds_from_cohort_to_log: Timing
    seconds_from_log_to_log: Timing
    bytes_sent_per_peer: Timing
    packed_model_bytes: int
    sent_over_packed: Timing
    most_sent_over_packed: float
    processor_seconds_per_round: Processor
    retried_attempts: int
    rounds_with_dropouts: int


class Kill(Strict):
    round: int
    node: str
    after_s: float
    last_event: str


class Soak(Strict):
    peers: int
    rounds_logged: int
    attempts: int
    rounds_retried: int
    rounds_with_dropouts: int
    smallest_survivor_set: int
    kills: list[Kill]
    seconds_total: float
    seconds_from_log_to_log: Timing
    longest_gap_s: float


class LargeModel(Strict):
    parameters: int
    publish_seconds: float
    slowest_peer_seconds: list[dict[str, float]]
    node_baseline_bytes: int
    node_peak_bytes: int
    node_peak_over_parameters: float
    signaling_peak_over_parameters: float
    trace_and_check_seconds: float
    author_trace_peak_bytes: int
    author_baseline_bytes: int
    author_peak_bytes: int
    author_peak_over_parameters: float
    check_baseline_bytes: int
    check_peak_bytes: int
    check_peak_over_parameters: float


@dataclass(frozen=True)
class Promise:
    """Options that make it small, the type of its figures, the cases where these are named by what was asked for, and
    words that its text has; without any the text is the object again, indented."""

    options: str
    figures: type
    cases: tuple[str, ...] | None = None
    words: tuple[str, ...] = ()


PROMISES = {
    "plan_step": Promise(
        "--models|MLP 64-32-10|--repeats|1", Step, cases=(MLP,), words=(f"{MLP}: eager ", "plan_loop ", "eager/loop ")
    ),
    "plan_step_web": Promise(
        "--models|MLP 64-32-10|--repeats|1", WebStep, cases=(MLP,), words=(f"{MLP}: onnxruntime ", "differ by ")
    ),
    "secagg": Promise(
        "--only|4|100|--repeats|1", Secagg, words=("nobody lost", "1 lost before", "1 lost after", "peak memory: ")
    ),
    "server_optimizers": Promise(
        "--repeats|1", ServerOptimizers, words=("fedavg ", "fedavgm ", "fedadam ", "fedyogi ")
    ),
    "many_cohorts": Promise(
        "--peers|16|--elements|10|--size|4|--fan-in|4",
        Population,
        cases=("n16",),
        words=('"all_levels": {',),
    ),
    "links": Promise(
        "--repeats|1|--links|1|--pings|2|--small|10|--bulks|2",
        Links,
        words=("library_transports\n", "faster_transports\n", "mb_per_s "),
    ),
    "signaling": Promise("--connections|5|--messages|8|--rounds|2|--trips|2|--idle-s|1", Signaling),
    "rounds": Promise(
        "--peers|3|--parameters|small|--rounds|2",
        Rounds,
        cases=("small_n3",),
        words=("small_n3: ", "slowest peer: link ", "retried"),
    ),
    "soak": Promise("--peers|5|--rounds|1|--every|1", Soak),
    "large_model": Promise(
        "--rounds|1|--blocks|1|--tokens|2500",
        LargeModel,
        words=("parameters: 4,449,792\n", "check_peak_over_parameters: "),
    ),
}
