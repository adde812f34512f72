/** Members come, go and change weight while traffic runs; nothing is restarted and nothing is cut. */
import { createPool, createProxy } from '@weir/core'
import { testUpstream } from '@weir/testing'

const start = (name: string) => testUpstream((_req, res) => void setTimeout(() => res.end(name), 5))
await using a = await start('a')
await using b = await start('b')
await using c = await start('c')

const pool = createPool({ upstreams: [{ id: 'a', url: a.url }] })
await using proxy = createProxy({ pool })

async function shares(title: string): Promise<void> {
  const answers: Record<string, number> = {}
  await Promise.all(
    Array.from({ length: 60 }, async () => {
      const name = (await proxy.inject({ url: '/' })).text()
      answers[name] = (answers[name] ?? 0) + 1
    }),
  )
  console.log(title.padEnd(24), answers)
}

await shares('one')
pool.add({ id: 'b', url: b.url })
await shares('b joins')
pool.add({ id: 'c', url: c.url, weight: 2 })
await shares('c joins, weight 2')
pool.setWeight('a', 5)
await shares('a weighs 5')

// `drain` keeps the member and whoever has affinity to it; `remove` takes it out. Both resolve when its last exchange has ended.
await pool.drain('a')
await shares('a drained')
pool.undrain('a')
await pool.remove('c', { deadline: '10s' })
await shares('a back, c removed')

// An id is an identity: the same service may come back under another address.
await pool.remove('b')
pool.add({ id: 'b', url: c.url })
console.log(pool.stats().upstreams.map(({ id, state, weight }) => `${id} ${state} ${weight}`))

await proxy.close()
await pool.close()
