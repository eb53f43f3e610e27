/** Milliseconds in which this process ran: after a starved, stopped or sleeping one goes on, nobody else is late for it. */

/** Less is the lateness of timers: a page that nobody looks at has them once per second. */
const SHORTEST_STOP_MS = 1_000;

/**
 * A monotonic clock that leaves out stretches in which this process did not run.
 *
 * Whoever made it reads it at least every `beatMs` while the process runs, so that a longer time between two readings is
 * one in which it did not. Every reading finds that out by itself: it does not matter which timer or message comes first
 * afterwards.
 */
export class RunningClock {
  private readAt: number;
  private leftOutMs = 0;

  constructor(
    /** A monotonic clock, in milliseconds. */
    private readonly read: () => number,
    /** The longest time between two readings while the process runs. */
    private readonly beatMs: number,
  ) {
    this.readAt = read();
  }

  /** Milliseconds, less those in which the process did not run. */
  now(): number {
    const time = this.read();
    const late = time - this.readAt - this.beatMs;
    if (late >= SHORTEST_STOP_MS) this.leftOutMs += late;
    this.readAt = time;
    return time - this.leftOutMs;
  }
}
