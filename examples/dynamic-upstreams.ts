/** Upstreams from somewhere else: a source is any AsyncIterable of whole lists. A wrong list, and a source that breaks, change nothing. */
import { subscribe } from 'node:diagnostics_channel'
import { createProxy, type UpstreamInput, type UpstreamSource } from '@weir/core'
import { testUpstream } from '@weir/testing'

await using a = await testUpstream({ '*': 'a' })
await using b = await testUpstream({ '*': 'b' })

/** What a registry would be: lists (or failures) are put in, and whoever reads gets the next one. */
class Registry implements UpstreamSource {
  next = Promise.withResolvers<readonly UpstreamInput[]>()

  // Called anew when the one before has thrown, after 1 s at first: an object can be opened again, a running generator could not.
  async *[Symbol.asyncIterator](): AsyncGenerator<readonly UpstreamInput[]> {
    for (;;) {
      const { promise } = this.next
      yield await promise.finally(() => {
        this.next = Promise.withResolvers()
      })
    }
  }
}

const feed = new Registry()
let told = (): void => {}
subscribe('weir:pool:source', (message) => {
  const { added, removed, changed, error } = message as Record<'added' | 'removed' | 'changed', string[]> & { error: Error | undefined }
  console.log('  pool:', error === undefined ? { added, removed, changed } : `kept the last list: ${error.message.replace(/\s+/g, ' ')}`)
  told()
})
const applied = (): Promise<void> => new Promise((resolve) => (told = resolve))

await using proxy = createProxy({ upstreams: feed })
feed.next.resolve([{ id: 'one', url: a.url }])
console.log('the first request waits for the first list:', (await proxy.inject({ url: '/' })).text())

const lists: (readonly UpstreamInput[])[] = [
  [
    { id: 'one', url: a.url, weight: 3 },
    { id: 'two', url: b.url },
  ],
  [
    { id: 'one', url: a.url },
    { id: 'two', url: 'not a url' },
  ],
  [{ id: 'two', url: b.url }],
]
for (const list of lists) {
  const done = applied()
  feed.next.resolve(list)
  await done
}
const failed = applied()
feed.next.reject(new Error('the registry is unreachable'))
await failed
console.log('still served, by', (await proxy.inject({ url: '/' })).text())
