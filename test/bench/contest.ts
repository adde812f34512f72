/**
 * Interleaved rounds. On a shared machine the clock rate, the neighbours and the temperature change by the minute, so one contestant's
 * figures of one minute say nothing beside another's of the next. Every round therefore runs all contestants, each in a fresh process (one
 * process may be lucky with its code layout for its whole life), and ratios are taken within a round; what is reported is their median.
 * Those whose ratio matters most (`leads`) are up at the same time and take turns, a few seconds each, so that a drift cancels that is slower than a turn; where
 * that cannot be, they run at both ends of a round. A single round is a smoke run and does without.
 */
import type { Child } from './children.ts'
import { mean, median } from './stats.ts'

export interface Contestant {
  readonly name: string
  readonly leads?: boolean
  start(): Promise<Child>
}

/** How leads take turns. */
export interface Turns {
  readonly count: number
  /** Before the first turn. */
  warmUp(child: Child, contestant: Contestant): Promise<void>
  /** One turn of a child that is warm. */
  measure(child: Child, contestant: Contestant): Promise<Sample>
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
  turns?: Turns,
): Promise<Standings> {
  const samples = new Map<string, Sample[][]>(contestants.map(({ name }) => [name, []]))
  const failures = new Map<string, string>()
  const leads = contestants.filter((contestant) => contestant.leads)
  const others = contestants.filter((contestant) => !contestant.leads)
  const takeTurns = async (contestants: readonly Contestant[], round: number, { count, warmUp, measure: turn }: Turns): Promise<void> => {
    const running: { readonly contestant: Contestant; readonly child: Child }[] = []
    let now = ''
    try {
      for (const contestant of contestants) {
        now = contestant.name
        progress(`round ${round + 1}/${rounds} ${now}`)
        const child = await contestant.start()
        running.push({ contestant, child })
        await warmUp(child, contestant)
      }
      for (let i = 0; i < count; i++) {
        progress(`round ${round + 1}/${rounds} turn ${i + 1}/${count}`)
        for (const { contestant, child } of i % 2 === 0 ? running : running.toReversed()) {
          now = contestant.name
          const sample = await turn(child, contestant)
          const list = samples.get(now) as Sample[][]
          list[round] = [...(list[round] ?? []), sample]
        }
      }
    } catch (error) {
      failures.set(now, error instanceof Error ? error.message : String(error))
    } finally {
      for (const { child } of running) await child.stop()
    }
  }

  for (let round = 0; round < rounds; round++) {
    const inTurns = turns !== undefined && rounds > 1
    if (inTurns)
      await takeTurns(
        leads.filter(({ name }) => !failures.has(name)),
        round,
        turns,
      )
    const between = round % 2 === 0 ? others : others.toReversed()
    const order = inTurns ? between : [...leads, ...between, ...(rounds > 1 ? leads.toReversed() : [])]
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
  const ratioInRound = (name: string, to: string, metric: string, round: number): number => {
    const [ours, theirs] = [samples.get(name)?.[round] ?? [], samples.get(to)?.[round] ?? []]
    // Turn by turn where both took turns; else of the means.
    if (turns === undefined || ours.length < 2 || ours.length !== theirs.length)
      return inRound(name, round, metric) / inRound(to, round, metric)
    return median(ours.map((sample, i) => (sample[metric] ?? Number.NaN) / (theirs[i]?.[metric] ?? Number.NaN)))
  }
  const ratios = (name: string, to: string, metric: string): number[] =>
    allRounds.map((round) => ratioInRound(name, to, metric, round)).filter((ratio) => Number.isFinite(ratio))
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
