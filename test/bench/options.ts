/** What a run is asked to do, and what a section of the report is made of. */

export interface BenchOptions {
  /** A smoke run: everything is started and answers, figures mean nothing. */
  readonly quick: boolean
  readonly rounds: number
  /** Seconds per contestant and round, whole. */
  readonly duration: number
  progress(text: string): void
}

/** Sections whose single runs take long do with two thirds of the rounds. */
export function fewerRounds({ rounds }: BenchOptions): number {
  return Math.ceil((rounds * 2) / 3)
}

export interface Section {
  readonly id: string
  readonly title: string
  readonly goal: string
  /** Markdown. */
  readonly text: string
  /** Contestants that failed, or requests that did. */
  readonly failures: readonly string[]
}
