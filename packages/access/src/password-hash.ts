/**
 * Passwords are kept as scrypt hashes (RFC 7914): slow and hungry for memory on purpose, so that a stolen list is of little use. The text is that of
 * the PHC format, `$scrypt$ln=15,r=8,p=1$salt$hash`, which other tools read and write too. Each hash brings its own cost, so that it can be
 * raised without asking everybody for a new password.
 */
import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto'
import { OptionReader } from '@weir/core'

export interface HashPasswordOptions {
  /** Power of two of the work, 10 to 20. Default 15: 32 MiB and some 60 ms of one core. Each step doubles both. */
  readonly cost?: number
}

export interface PasswordHash {
  readonly cost: number
  readonly r: number
  readonly p: number
  readonly salt: Buffer
  readonly hash: Buffer
}

const pattern = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$/

/** Undefined when it is none, or one whose memory would be an attack by itself. */
export function parseHash(text: unknown): PasswordHash | undefined {
  const match = typeof text === 'string' ? pattern.exec(text) : null
  if (match === null) return undefined
  const [cost = 0, r = 0, p = 0] = match.slice(1, 4).map(Number)
  const [salt, hash] = match.slice(4).map((part) => Buffer.from(part, 'base64')) as [Buffer, Buffer]
  return cost >= 1 && cost <= 20 && r >= 1 && r <= 16 && p >= 1 && p <= 16 && 2 ** cost * r * 128 <= 2 ** 30
    ? { cost, r, p, salt, hash }
    : undefined
}

/** A hash to put into `users` of `basicAuth`. @throws OptionsError */
export async function hashPassword(password: string, options?: HashPasswordOptions): Promise<string> {
  const read = new OptionReader('hashPassword')
  const cost = read.number('cost', read.object<HashPasswordOptions>(options, ['cost']).cost, 15, { min: 10, max: 20, integer: true })
  if (typeof password !== 'string' || password === '') read.problem('password', typeof password, 'a non-empty text')
  read.check()
  const salt = randomBytes(16)
  const hash = await derive(password, { cost, r: 8, p: 1, salt, hash: Buffer.alloc(32) })
  const text = (bytes: Buffer): string => bytes.toString('base64').replace(/=+$/, '')
  return `$scrypt$ln=${cost},r=8,p=1$${text(salt)}$${text(hash)}`
}

/** On a thread of libuv's pool, so the event loop goes on. */
export async function verifyPassword(password: string, wanted: PasswordHash): Promise<boolean> {
  return timingSafeEqual(await derive(password, wanted), wanted.hash)
}

/** Somebody who is not there, at the cost of those who are: who asks for him must not get his answer sooner. */
export function nobody(like: PasswordHash | undefined): PasswordHash {
  const { cost = 15, r = 8, p = 1 } = like ?? {}
  return { cost, r, p, salt: randomBytes(16), hash: randomBytes(like?.hash.length ?? 32) }
}

function derive(password: string, { cost, r, p, salt, hash }: PasswordHash): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  const options: ScryptOptions = { N: 2 ** cost, r, p, maxmem: 2 ** cost * r * 128 + r * p * 128 + 1024 * 1024 }
  // One password can be typed as different code points; RFC 7613 §4.2.2 wants it composed.
  scrypt(password.normalize('NFC'), salt, hash.length, options, (error, key) => (error === null ? resolve(key) : reject(error)))
  return promise
}
