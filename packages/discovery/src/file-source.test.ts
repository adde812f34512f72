/** Real files, changed in the ways that editors, deployments and accidents change them. */
import { execFile } from 'node:child_process'
import { watch } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm, symlink, truncate, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { createPool, OptionsError } from '@weir/core'
import { fakeTransport, virtualClock } from '@weir/testing'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { DiscoveryError } from './discovery-error.ts'
import { type FileSourceOptions, fileSource } from './file-source.ts'
import { type Reading, read, until } from './fixtures/reading.ts'

let folder: string
let path: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-file-source-'))
  path = join(folder, 'upstreams.json')
})
afterEach(() => rm(folder, { recursive: true }))

const text = (...ports: number[]): string => JSON.stringify(ports.map((port) => `http://127.0.0.1:${port}`))
const urls = (...ports: number[]): string[] => ports.map((port) => `http://127.0.0.1:${port}`)

/** Real time; the safety net is an hour away, so that nothing but the watcher can have noticed. */
const watching = (options: FileSourceOptions = {}): Reading => read(fileSource(path, { debounce: 5, interval: '1h', ...options }))

/** Virtual time: `step` lets one debounce pass, and waits for what is read then. */
async function stepping(options: FileSourceOptions = {}) {
  const clock = virtualClock()
  const seen: string[] = []
  const parse = (content: string): unknown => {
    seen.push(content)
    return JSON.parse(content)
  }
  const reading = read(fileSource(path, { debounce: 50, interval: '1h', firstFailure: 'wait', clock, parse, ...options }))
  const settled = (): Promise<unknown> => until('a read is over', () => clock.pending === 1)
  await settled()
  return {
    clock,
    reading,
    seen,
    step: async (ms = 50) => {
      await clock.advance(ms)
      await settled()
    },
    /** Steps until the content was read for the first time, and no further. */
    async seeing(content: string, from = 0) {
      for (let i = 0; !seen.includes(content, from); i++) {
        if (i === 1000) throw new Error(`never read: ${content}`)
        await clock.advance(50)
        await settled()
        // The sign of the change comes from the system.
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
    },
    [Symbol.asyncDispose]: async () => {
      await reading[Symbol.asyncDispose]()
      expect(clock.pending).toBe(0)
    },
  }
}

describe('a file', () => {
  it('gives upstreams in all the shapes that a pool takes', async () => {
    const list = ['http://127.0.0.1:1', { url: 'https://app.internal/base/', id: 'a', weight: 2, priority: 1, meta: { zone: 'b' } }]
    await writeFile(path, `\uFEFF${JSON.stringify(list)}`)
    await using reading = watching()
    expect(await reading.list(1)).toEqual([
      { url: 'http://127.0.0.1:1/', id: 'http://127.0.0.1:1' },
      { url: 'https://app.internal/base/', id: 'a', weight: 2, priority: 1, meta: { zone: 'b' } },
    ])
    const pool = createPool({ upstreams: await reading.list(1), transport: fakeTransport() })
    expect(pool.upstreams.map(({ id }) => id)).toEqual(['http://127.0.0.1:1', 'a'])
    await pool.close()
    expect(reading.told).toEqual([{ type: 'list', source: `file:${path}`, upstreams: await reading.list(1) }])
  })

  it('may say of probes what it likes, within what a guard lets pass', async () => {
    const list = ['127.0.0.2', '169.254.169.254'].map((address, index) => ({
      url: `http://127.0.0.1:${index}`,
      meta: { health: { address, tls: { insecure: true }, send: 'PING' } },
    }))
    await writeFile(path, JSON.stringify(list))
    await using trusting = watching()
    expect(await trusting.list(1)).toMatchObject(list.map(({ meta }) => ({ meta })))
    await using guarded = watching({ guard: (address) => address.startsWith('127.') })
    expect(await guarded.urls(1)).toEqual(urls(0))
  })

  it('may be named by a URL, and may be empty of upstreams', async () => {
    await writeFile(path, '[]')
    await using reading = read(fileSource(pathToFileURL(path)))
    expect(await reading.list(1)).toEqual([])
  })

  it.each([
    ['written anew', (content: string) => writeFile(path, content)],
    ['truncated and written', (content: string) => truncate(path, 0).then(() => writeFile(path, content))],
    [
      'replaced by another',
      async (content: string) => {
        await writeFile(`${path}.new`, content)
        await rename(`${path}.new`, path)
      },
    ],
    [
      'moved away and written, as editors with backups do',
      async (content: string) => {
        await rename(path, `${path}~`)
        await writeFile(path, content)
      },
    ],
    ['deleted and written', (content: string) => unlink(path).then(() => writeFile(path, content))],
  ])('that is %s is read again, each time', async (_how, change) => {
    await writeFile(path, text(1))
    await using reading = watching()
    await reading.list(1)
    for (const port of [2, 3, 4]) {
      await change(text(port))
      expect(await reading.urls(port)).toEqual(urls(port))
    }
  })

  it('that is a link is read again when the link leads elsewhere, as in a mounted ConfigMap', async () => {
    const version = async (name: string, port: number): Promise<void> => {
      await mkdir(join(folder, name))
      await writeFile(join(folder, name, 'upstreams.json'), text(port))
      await symlink(name, join(folder, '..data_tmp'))
      await rename(join(folder, '..data_tmp'), join(folder, '..data'))
    }
    await version('..v1', 1)
    await symlink(join('..data', 'upstreams.json'), path)
    await using reading = watching()
    expect(await reading.urls(1)).toEqual(urls(1))
    await version('..v2', 2)
    expect(await reading.urls(2)).toEqual(urls(2))
    await version('..v3', 3)
    expect(await reading.urls(3)).toEqual(urls(3))
  })

  it('that says the same in another order gives no other list', async () => {
    await writeFile(path, text(1, 2))
    await using t = await stepping()
    const other = `${text(2, 1)}\n`
    await writeFile(path, other)
    await t.seeing(other)
    expect([t.reading.lists.length, t.reading.failures]).toEqual([1, []])
  })

  it('where no watcher sees it is read at the interval', async () => {
    const elsewhere = await mkdtemp(join(tmpdir(), 'weir-elsewhere-'))
    try {
      await writeFile(join(elsewhere, 'list.json'), text(1))
      await symlink(join(elsewhere, 'list.json'), path)
      await using t = await stepping({ interval: '30s' })
      await writeFile(join(elsewhere, 'list.json'), text(2))
      await t.step(29_999)
      expect(t.seen).toHaveLength(1)
      await t.step(1)
      expect(await t.reading.urls(2)).toEqual(urls(2))
    } finally {
      await rm(elsewhere, { recursive: true })
    }
  })

  it('in a folder that is made anew is watched there', async () => {
    const sub = join(folder, 'sub')
    path = join(sub, 'upstreams.json')
    await mkdir(sub)
    await writeFile(path, text(1))
    await using t = await stepping()
    await rm(sub, { recursive: true })
    await mkdir(sub)
    await writeFile(path, text(2))
    // The interval finds the folder, the watcher what happens in it from then on.
    await t.step(3_600_000)
    await t.seeing(text(2))
    await writeFile(path, text(3))
    await t.seeing(text(3))
    expect(await t.reading.urls(3)).toEqual(urls(3))
  })

  it('that changes while it is being read is read again', async () => {
    await writeFile(path, text(1))
    const parse = async (content: string): Promise<unknown> => {
      if (content === text(1)) {
        const event = new Promise<void>((resolve) => {
          const watcher = watch(folder, () => {
            watcher.close()
            resolve()
          })
        })
        await writeFile(path, text(2))
        await event
      }
      return JSON.parse(content)
    }
    await using reading = watching({ parse })
    expect(await reading.urls(2)).toEqual(urls(2))
  })
})

describe('a file that is not there yet', () => {
  it('throws at first by default, and is read when the source is opened again', async () => {
    const source = fileSource(path, { debounce: 1 })
    await expect(source[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'ERR_DISCOVERY_FILE', cause: { code: 'ENOENT' } })
    await writeFile(path, text(1))
    await using reading = read(source)
    expect(await reading.urls(1)).toEqual(urls(1))
  })

  it('is waited for with firstFailure: "wait", also together with its folder', async () => {
    await using reading = watching({ firstFailure: 'wait' })
    await until('it is reported', () => reading.told.length > 0)
    await writeFile(path, text(1))
    expect(await reading.urls(1)).toEqual(urls(1))
    expect(reading.failures).toEqual(['ERR_DISCOVERY_FILE'])

    path = join(folder, 'later', 'upstreams.json')
    await using second = watching({ firstFailure: 'wait', interval: 20 })
    await until('it is reported', () => second.told.length > 0)
    await mkdir(join(folder, 'later'))
    await writeFile(path, text(2))
    expect(await second.urls(1)).toEqual(urls(2))
  })
})

describe('a wrong file', () => {
  it('half-written is not reported, and the whole one is taken', async () => {
    await writeFile(path, text(1))
    await using t = await stepping()
    const whole = text(2, 3)
    const half = whole.slice(0, 20)
    await writeFile(path, half)
    await t.seeing(half)
    expect(t.reading.told.map(({ type }) => type)).toEqual(['list'])
    await writeFile(path, whole)
    await t.step()
    expect(await t.reading.urls(2)).toEqual(urls(2, 3))
    expect(t.reading.failures).toEqual([])
  })

  it('that stays so is reported once, and the last good list stays', async () => {
    await writeFile(path, text(1))
    const errors: DiscoveryError[] = []
    await using t = await stepping({ interval: '30s', onError: (error) => void errors.push(error) })
    const half = text(2).slice(0, 9)
    await writeFile(path, half)
    await t.seeing(half)
    await t.step()
    for (let i = 0; i < 3; i++) await t.step(30_000)
    expect([errors.map(({ code }) => code), t.reading.lists.length]).toEqual([['ERR_DISCOVERY_SYNTAX'], 1])
    expect(errors[0]?.message).toContain(path)
    expect(t.reading.told.at(-1)).toEqual({ type: 'kept', source: `file:${path}`, upstreams: await t.reading.list(1), error: errors[0] })
    // Mended to what it was.
    await writeFile(path, `${text(1)} `)
    await t.seeing(`${text(1)} `)
    // Wrong as before: that is news again.
    const before = t.seen.length
    await writeFile(path, half)
    await t.seeing(half, before)
    await t.step()
    expect(errors).toHaveLength(2)
    expect(t.reading.lists).toHaveLength(1)
  })

  it('is told of with all its mistakes: where, what was given, what was expected', async () => {
    const list = [
      'http://127.0.0.1:1',
      'ftp://a',
      { url: 'http://127.0.0.1:2', weight: -1, wieght: 2 },
      { id: 'x' },
      'http://127.0.0.1:1',
      7,
    ]
    await writeFile(path, JSON.stringify(list))
    const error = await fileSource(path, { debounce: 1 })
      [Symbol.asyncIterator]()
      .next()
      .then(
        () => undefined,
        (thrown: unknown) => thrown as DiscoveryError,
      )
    expect(DiscoveryError.is(error)).toBe(true)
    expect(error?.code).toBe('ERR_DISCOVERY_LIST')
    expect(error?.problems.map((problem) => problem.path).toSorted()).toEqual([
      '$[1]',
      '$[2].weight',
      '$[2].wieght',
      '$[3].url',
      '$[4].id',
      '$[5]',
      '$[5].url',
    ])
    for (const { expected, given } of error?.problems ?? []) expect([expected === '', given === '']).toEqual([false, false])
    for (const part of [path, '$[1]', '"ftp://a"', '$[2].weight']) expect(error?.message).toContain(part)
  })

  it.each([
    ['an object', '{"upstreams":[]}', 'ERR_DISCOVERY_LIST'],
    ['null', 'null', 'ERR_DISCOVERY_LIST'],
    ['text', '"http://127.0.0.1:1"', 'ERR_DISCOVERY_LIST'],
    ['nothing at all', '', 'ERR_DISCOVERY_SYNTAX'],
    ['not UTF-8', Buffer.from([0x5b, 0xff, 0x5d]), 'ERR_DISCOVERY_SYNTAX'],
    ['too long', `[${' '.repeat(100)}]`, 'ERR_DISCOVERY_TOO_LARGE'],
  ])('that is %s', async (_what, content, code) => {
    await writeFile(path, content)
    await expect(fileSource(path, { debounce: 1, maxSize: 50 })[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code })
  })

  it('of exactly the size allowed is none', async () => {
    await writeFile(path, `[${' '.repeat(48)}]`)
    await using reading = watching({ maxSize: 50 })
    expect(await reading.list(1)).toEqual([])
  })

  it.skipIf(process.platform === 'win32')('that is a pipe is not opened: nobody may ever write', async () => {
    await promisify(execFile)('mkfifo', [path])
    await expect(fileSource(path, { debounce: 1 })[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'ERR_DISCOVERY_FILE' })
  })

  it('that is a folder, or has gone, leaves the last good list', async () => {
    await writeFile(path, text(1))
    await using reading = watching()
    await reading.list(1)
    await unlink(path)
    await until('it is reported', () => reading.failures.length === 1)
    await mkdir(path)
    await until('it is reported', () => reading.failures.length === 2)
    expect([reading.failures, reading.lists.length]).toEqual([['ERR_DISCOVERY_FILE', 'ERR_DISCOVERY_FILE'], 1])
  })
})

describe('options', () => {
  it('a format of your own', async () => {
    await writeFile(path, '127.0.0.1:1\n127.0.0.1:2\n')
    const lines = (content: string): string[] =>
      content
        .split('\n')
        .filter(Boolean)
        .map((line) => `http://${line}`)
    await using reading = watching({ parse: lines })
    expect(await reading.urls(1)).toEqual(urls(1, 2))
  })

  it('a guard drops addresses; none is there by default, and names pass', async () => {
    await writeFile(
      path,
      JSON.stringify(['http://127.0.0.1:1', 'http://10.0.0.1', 'http://[::1]:2', 'http://localhost:1', 'unix:/run/a.sock']),
    )
    await using all = watching()
    expect(await all.list(1)).toHaveLength(5)
    await using reading = watching({ guard: (address) => address.startsWith('10.') })
    expect(await reading.urls(1)).toEqual(['http://10.0.0.1', 'http://localhost:1', 'unix:/run/a.sock'])
    expect(reading.told.flatMap((event) => (event.type === 'refused' ? [event.address] : []))).toEqual(['127.0.0.1', '::1'])
  })

  it('a guard that leaves nothing leaves the last good list', async () => {
    await writeFile(path, JSON.stringify(['http://10.0.0.1']))
    await using reading = watching({ guard: (address) => address.startsWith('10.') })
    await reading.list(1)
    await writeFile(path, text(1))
    await until('it is reported', () => reading.failures.length === 1)
    expect([reading.failures, reading.lists.length]).toEqual([['ERR_DISCOVERY_REFUSED'], 1])
  })

  it('that are wrong are reported all at once', () => {
    try {
      fileSource('', { debounce: 0, interval: 1, maxSize: -1, parse: 'json', onError: 1, guard: 2 } as never)
      expect.unreachable()
    } catch (error) {
      expect(OptionsError.is(error)).toBe(true)
      const paths = (error as OptionsError).problems.map((problem) => problem.path).toSorted()
      expect(paths).toEqual(['debounce', 'file', 'guard', 'interval', 'maxSize', 'onError', 'parse'])
    }
  })
})

it('nothing is left behind after return, also in the middle of a read', async () => {
  await writeFile(path, text(1))
  const clock = virtualClock()
  const source = fileSource(path, { clock })
  for (let i = 0; i < 20; i++) {
    const iterator = source[Symbol.asyncIterator]()
    const pending = iterator.next()
    if (i % 2 === 1) await pending
    await iterator.return?.()
    await pending
  }
  await until('all reads are over', () => !process.getActiveResourcesInfo().some((kind) => kind.startsWith('FS')))
  expect(clock.pending).toBe(0)
  expect(await readFile(path, 'utf8')).toBe(text(1))
})
