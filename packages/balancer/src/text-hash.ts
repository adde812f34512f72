/**
 * Texts as numbers to hash by. 32 bits, spread evenly, and signed, as all hashes here: numbers from 2^31 on are objects to the engine when a
 * function returns them, and a pick must not allocate.
 */

/** Of the text's UTF-16 units from `start` up to `end`; another `seed` is another hash function. */
export function hashText(text: string, seed: number, start: number = 0, end: number = text.length): number {
  let hash = seed
  let i = start
  // Two units a step: each step waits for the one before it, which is most of what a hash costs.
  // The second is spread over the word first: in its upper half alone it would touch too little of the product (measured: thousands of keys
  // of three letters had the hash of another).
  for (; i + 1 < end; i += 2) hash = stir(hash, text.charCodeAt(i) ^ Math.imul(text.charCodeAt(i + 1), 0x85eb_ca6b))
  if (i < end) hash = stir(hash, text.charCodeAt(i))
  // A last unit alone is not the same as one with a zero behind it.
  return mix(hash ^ (end - start))
}

/** Each bit of the input changes about half of the output's: the finaliser of MurmurHash3 (A. Appleby, public domain). */
export function mix(value: number): number {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
  return hash ^ (hash >>> 16)
}

/** Another number that looks unrelated; a sequence of them for a key goes on for 2^32 steps. */
export function rehash(hash: number): number {
  return mix((hash + 0x9e37_79b9) | 0)
}

export function stir(hash: number, word: number): number {
  const product = Math.imul(hash ^ word, 0x9e37_79b1)
  return (product << 13) | (product >>> 19)
}
