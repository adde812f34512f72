/**
 * Changes a disk store without end, until it is killed. Before each change it says `storing` or `removing` and the key, after it what is
 * there under the key: `kept` with id and lifetime, or `gone`. A line is in the pipe when the call returns, so the reader knows what was
 * done and what was only begun.
 */
import { diskStore } from '@weir/cache'
import { diskBody, diskEntry } from '../disk-entries.ts'

const [directory = '', round = ''] = process.argv.slice(2)
const store = diskStore({ directory, maxSize: '256MiB' })
await store.start()
process.stdout.write('ready\n')

function say(...words: readonly (string | number)[]): void {
  process.stdout.write(`${words.join(' ')}\n`)
}

async function change(key: string): Promise<never> {
  for (let n = 0; ; n++) {
    const id = `${round}-${key}-${n}`
    let entry = diskEntry(key, id, Math.floor(Math.random() * (n % 5 === 0 ? 400_000 : 5000)), n)
    say('storing', key)
    if (!(await store.put(entry, diskBody(id, entry.size)))) throw new Error('not kept')
    say('kept', key, id, entry.lifetime)
    if (n % 2 === 0) {
      entry = { ...entry, lifetime: n + 1, fields: ['X-Grown', 'x'.repeat(n % 4 === 0 ? 2000 : 1)] }
      say('storing', key)
      await store.update(entry)
      say('kept', key, id, entry.lifetime)
    }
    if (n % 3 > 0) continue
    say('removing', key)
    if (n % 2 === 0) await store.invalidate(key, { kind: 'delete' })
    else await store.invalidateTag(`tag-${key}`, { kind: 'delete' })
    say('gone', key)
  }
}

await Promise.all(Array.from({ length: 12 }, (_, i) => change(`k${i}`)))
