/**
 * Interleaved rounds. On a shared machine the clock rate, the neighbours and the temperature change by the minute, so one contestant's
 * figures of one minute say nothing beside another's of the next. Every round therefore runs all contestants, each in a fresh process (one
 * process may be lucky with its code layout for its whole life), and ratios are taken within a round; what is reported is their median.
 * Those whose ratio matters most (`leads`) run at both ends of a round, so that a drift within it cancels. A single
 * round is a smoke run and does without.
 */
import type { Child } from './children.ts'
import { mean, median } from './stats.ts'

export interface Contestant {
  readonly name: string
  readonly leads?: boolean
  start(): Promise<Child>
}

export type Sample = Readonly<Record<string, number>>

export interface Standing {
  readonly name: string
  /** Why it has no figures. */
  readonly failed: string | undefined
  /** Median over rounds. */
  value(metric: string): number
  /** Median over rounds of the ratio to another within the same round; undefined where one of both is missing. */
  ratio(metric: string, to: string): number | undefined
  /** Lowest and highest of those ratios. */
  spread(metric: string, to: string): readonly [number, number] | undefined
}

export type Standings = readonly Standing[]

export async function contest(
  contestants: readonly Contestant[],
  rounds: number,
  measure: (child: Child, contestant: Contestant, round: number) => Promise<Sample>,
  progress: (text: string) => void,
): Promise<Standings> {
  const samples = new Map<string, Sample[][]>(contestants.map(({ name }) => [name, []]))
  const failures = new Map<string, string>()
  const leads = contestants.filter((contestant) => contestant.leads)
  const others = contestants.filter((contestant) => !contestant.leads)
  for (let round = 0; round < rounds; round++) {
    const order = [...leads, ...(round % 2 === 0 ? others : others.toReversed()), ...(rounds > 1 ? leads.toReversed() : [])]
    for (const contestant of order) {
      if (failures.has(contestant.name)) continue
      progress(`round ${round + 1}/${rounds} ${contestant.name}`)
      let child: Child | undefined
      try {
        child = await contestant.start()
        const sample = await measure(child, contestant, round)
        const list = samples.get(contestant.name) as Sample[][]
        list[round] = [...(list[round] ?? []), sample]
      } catch (error) {
        failures.set(contestant.name, error instanceof Error ? error.message : String(error))
      } finally {
        await child?.stop()
      }
    }
  }

  const inRound = (name: string, round: number, metric: string): number =>
    mean((samples.get(name)?.[round] ?? []).map((sample) => sample[metric] ?? Number.NaN).filter((value) => !Number.isNaN(value)))
  const allRounds = Array.from({ length: rounds }, (_, round) => round)
  const ratios = (name: string, to: string, metric: string): number[] =>
    allRounds.map((round) => inRound(name, round, metric) / inRound(to, round, metric)).filter((ratio) => Number.isFinite(ratio))
  return contestants.map(({ name }) => ({
    name,
    failed: failures.get(name),
    value: (metric) => median(allRounds.map((round) => inRound(name, round, metric)).filter((value) => !Number.isNaN(value))),
    ratio: (metric, to) => {
      const list = ratios(name, to, metric)
      return list.length === 0 || failures.has(name) ? undefined : median(list)
    },
    spread: (metric, to) => {
      const list = ratios(name, to, metric)
      return list.length === 0 || failures.has(name) ? undefined : [Math.min(...list), Math.max(...list)]
    },
  }))
}
