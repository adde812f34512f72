/**
 * Several questions to one upstream, as one. All are asked at once, and when the answer is clear the others are called off; the answer is given
 * when they have ended, so that no two probes of one target ever overlap.
 */
import { OptionReader } from '@weir/core'
import { isProbe, type OpenProbe, type Probe, type ProbeFunction, type ProbeResult, reasonOf, toProbe } from './probe.ts'

/** Passes when all pass; degraded or draining when any of them says so. @throws OptionsError */
export function allOf(...probes: readonly (Probe | ProbeFunction)[]): Probe {
  return combine('allOf', probes, async (running, callOff) => {
    const results = await settle(running, callOff, (result) => result.status === 'rejected')
    for (const result of results.order) if (result.status === 'rejected') throw result.reason
    const said = results.order.map((result) => (result as PromiseFulfilledResult<ProbeResult | undefined>).value)
    return { degraded: said.some((one) => one?.degraded === true), draining: said.some((one) => one?.draining === true) }
  })
}

/** Passes when one passes, with what that one says; fails with an `AggregateError` of all reasons. @throws OptionsError */
export function anyOf(...probes: readonly (Probe | ProbeFunction)[]): Probe {
  return combine('anyOf', probes, async (running, callOff) => {
    const results = await settle(running, callOff, (result) => result.status === 'fulfilled')
    for (const result of results.order) if (result.status === 'fulfilled') return result.value
    const reasons = results.order.map((result) => (result as PromiseRejectedResult).reason as unknown)
    throw new AggregateError(reasons, reasons.map(reasonOf).join('; '))
  })
}

type Said = ProbeResult | undefined
type Judge = (running: readonly Promise<Said>[], callOff: () => void) => Promise<Said>

/** Waits for all; in the order in which they ended, so that the deciding one stands before those that were called off because of it. */
async function settle(
  running: readonly Promise<Said>[],
  callOff: () => void,
  decides: (result: PromiseSettledResult<Said>) => boolean,
): Promise<{ readonly order: readonly PromiseSettledResult<Said>[] }> {
  const order: PromiseSettledResult<Said>[] = []
  const ended = (result: PromiseSettledResult<Said>): void => {
    order.push(result)
    if (decides(result)) callOff()
  }
  await Promise.all(
    running.map((one) =>
      one.then(
        (value) => ended({ status: 'fulfilled', value }),
        (reason: unknown) => ended({ status: 'rejected', reason }),
      ),
    ),
  )
  return { order }
}

function combine(name: string, given: readonly (Probe | ProbeFunction)[], judge: Judge): Probe {
  const read = new OptionReader(name)
  if (given.length === 0) read.problem('probes', given, 'at least one probe')
  for (const [index, probe] of given.entries())
    if (!isProbe(probe)) read.problem(index, probe, 'a probe such as httpProbe() (mind the call), or a function')
  read.check()
  const probes = given.map(toProbe)
  return {
    name: `${name}(${probes.map((probe) => probe.name).join(', ')})`,
    open(target): OpenProbe {
      const open: OpenProbe[] = []
      const close = (): void => {
        for (const one of open) one.close?.()
      }
      try {
        for (const probe of probes) open.push(probe.open(target))
      } catch (error) {
        close()
        throw error
      }
      return {
        run(signal) {
          const controller = new AbortController()
          const inner = AbortSignal.any([signal, controller.signal])
          return judge(
            open.map(async (one) => (await one.run(inner)) ?? undefined),
            () => controller.abort(new Error('another probe has decided')),
          )
        },
        close,
      }
    },
  }
}
