/**
 * RFC 9110 §15.2: a client must be able to take an unsolicited `100 (Continue)`. undici destroys the connection instead, so the heads that
 * come before the final one are looked at here, between socket and parser: a 100 is cut out, every other 1xx goes on. A filter is made only
 * for a response that begins as a 1xx, or too short to tell, and serves until the final head: a usual response costs two byte comparisons.
 */
const empty: Buffer = Buffer.alloc(0)
/** A 1xx head longer than this is somebody playing; the parser gets it as it is and has limits of its own. */
const maxHeld = 16_384

export class InterimFilter {
  #awaiting = true
  #held: Buffer = empty

  /** False from the first byte of a final head on. */
  get awaiting(): boolean {
    return this.#awaiting
  }

  /** What the parser may see of `chunk`; null when it must wait. */
  filter(chunk: Buffer): Buffer | null {
    if (!this.#awaiting) return chunk
    let bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    let passed: Buffer = empty
    this.#held = empty
    while (bytes.length > 0) {
      const verdict = interimStatus(bytes)
      if (verdict === undefined) break
      const end = verdict === 0 ? -1 : bytes.indexOf('\r\n\r\n')
      if (end < 0) {
        if (bytes.length > maxHeld) break
        this.#held = Buffer.from(bytes)
        return passed.length > 0 ? passed : null
      }
      if (verdict !== 100) passed = passed.length === 0 ? bytes.subarray(0, end + 4) : Buffer.concat([passed, bytes.subarray(0, end + 4)])
      bytes = bytes.subarray(end + 4)
    }
    if (bytes.length === 0) return passed.length > 0 ? passed : null
    this.#awaiting = false
    return passed.length === 0 ? bytes : Buffer.concat([passed, bytes])
  }
}

/** Does a response that begins with these bytes need the filter? */
export function mayBeInterim(bytes: Buffer): boolean {
  return interimStatus(bytes) !== undefined
}

const statusLine = /^HTTP\/1\.[01] (1\d\d)[ \r]/

/** The 1xx status at the start of `bytes`; 0 when too short to tell; undefined when it is something else. */
function interimStatus(bytes: Buffer): number | undefined {
  if (bytes.length >= 10 ? bytes[9] !== 0x31 : bytes[0] !== 0x48) return undefined
  if (bytes.length < 13) return 0
  const match = statusLine.exec(bytes.toString('latin1', 0, 13))
  // 101 ends HTTP on this connection: what follows is not a head.
  return match === null || match[1] === '101' ? undefined : Number(match[1])
}
