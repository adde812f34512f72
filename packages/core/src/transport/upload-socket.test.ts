/** Failed writes of an upload are forgiven, and memory is given back after a write that went well, once, and after no other. */
import { Duplex } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { prepareForUpload, whenWritten } from './upload-socket.ts'

type Done = (error?: Error | null) => void

/** Writes end when the test says so, and how. */
class Socket extends Duplex {
  readonly pending: Done[] = []
  errors: Error[] = []

  constructor() {
    super()
    this.on('error', (error) => this.errors.push(error))
  }

  override _read(): void {}
  override _write(_chunk: unknown, _encoding: BufferEncoding, done: Done): void {
    this.pending.push(done)
  }
  override _writev(_chunks: unknown, done: Done): void {
    this.pending.push(done)
  }
}

const failure = (code: string): Error => Object.assign(new Error(code), { code })
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

function prepared(): { socket: Socket; lend(text: string): Buffer; returned: string[] } {
  const socket = new Socket()
  prepareForUpload(socket)
  prepareForUpload(socket)
  const returned: string[] = []
  const lend = (text: string): Buffer => {
    const chunk = Buffer.from(text)
    whenWritten(chunk, (back) => returned.push(back.toString()))
    return chunk
  }
  return { socket, lend, returned }
}

describe('memory', () => {
  it('is given back when its chunk has been written, not before, and once', async () => {
    const { socket, lend, returned } = prepared()
    const chunk = lend('a')
    socket.write(chunk)
    expect(returned).toEqual([])
    socket.pending.shift()?.()
    expect(returned).toEqual(['a'])
    await turn()
    socket.write(chunk)
    socket.pending.shift()?.()
    expect(returned).toEqual(['a'])
  })

  it('also of chunks that left in one gathered write, beside strings and what nobody lent', () => {
    const { socket, lend, returned } = prepared()
    socket.cork()
    socket.write('4\r\n', 'latin1')
    socket.write(lend('b'))
    socket.write(Buffer.from('not lent'))
    socket.write(lend('c'))
    socket.uncork()
    expect(socket.pending).toHaveLength(1)
    expect(returned).toEqual([])
    socket.pending.shift()?.()
    expect(returned).toEqual(['b', 'c'])
  })

  it('is not given back after a write that failed', async () => {
    for (const code of ['EPIPE', 'ECONNRESET', 'EIO']) {
      const { socket, lend, returned } = prepared()
      socket.write(lend('d'))
      socket.pending.shift()?.(failure(code))
      await turn()
      expect(returned, code).toEqual([])
    }
  })
})

describe('a write that fails', () => {
  it('because the other side has gone counts as done: the reading side tells what happened', async () => {
    for (const code of ['EPIPE', 'ECONNRESET']) {
      const { socket } = prepared()
      socket.write('x')
      socket.pending.shift()?.(failure(code))
      await turn()
      expect(socket.errors).toEqual([])
      expect(socket.destroyed).toBe(false)
    }
  })

  it('for another reason is an error', async () => {
    const { socket } = prepared()
    socket.write('x')
    socket.pending.shift()?.(failure('EIO'))
    await turn()
    expect(socket.errors).toMatchObject([{ code: 'EIO' }])
  })
})
