/** A source whose upstreams are changed on their way: another weight, a `host` for the certificate, some of them left out. */
import { OptionReader, type UpstreamInput, type UpstreamOptions, type UpstreamSource } from '@weir/core'
import { normalise } from './list-check.ts'

/**
 * @param change gets each upstream as an object with `url` and `id`; what it returns takes its place, `undefined` leaves it out. What it throws ends the
 * iteration: a pool keeps what it has, reports the error, and opens the source again.
 * @throws OptionsError
 */
export function map(
  source: UpstreamSource,
  change: (upstream: UpstreamOptions & { readonly id: string }) => UpstreamInput | undefined,
): UpstreamSource {
  const read = new OptionReader('map')
  if (typeof (source as Partial<UpstreamSource> | null)?.[Symbol.asyncIterator] !== 'function')
    read.problem('source', source, 'a source such as dnsSource({ host })')
  if (typeof change !== 'function') read.problem('change', change, 'a function')
  read.check()
  return {
    [Symbol.asyncIterator]: () => {
      const inner = source[Symbol.asyncIterator]()
      const changed = (result: IteratorResult<readonly UpstreamInput[]>): IteratorResult<readonly UpstreamInput[], undefined> => {
        if (result.done === true) return { done: true, value: undefined }
        return { done: false, value: result.value.map((input) => change(normalise(input))).filter((upstream) => upstream !== undefined) }
      }
      const close = async (): Promise<IteratorResult<readonly UpstreamInput[], undefined>> => {
        await inner.return?.()
        return { done: true, value: undefined }
      }
      return {
        next: async () => {
          const result = await inner.next()
          try {
            return changed(result)
          } catch (error) {
            void close().catch(() => {})
            throw error
          }
        },
        return: close,
      }
    },
  }
}
