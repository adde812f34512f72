/**
 * Where plain connections to upstreams are read into. Left alone, node allocates 64 KiB for every read and gives back what was not used; that is a
 * good part of what a small response costs, and for a large one the memory passes through the garbage collector at the speed of the network.
 *
 * So all connections share one scratch buffer, out of which a small read is copied at once. A body that goes past the parser is read into slabs
 * instead, which are used again when the client's connection has taken them, and simply left to the garbage collector when nobody says so.
 */
const slabSize = 65_536
/** 4 MiB: more are in use at the same time only when many clients are slow, and then they are not given back quickly either. */
const keptSlabs = 64

const slabs: Buffer[] = []

/** Read and copied within one callback, so that one is enough for all. */
export const scratch: Buffer = Buffer.allocUnsafeSlow(slabSize)

export function takeSlab(): Buffer {
  return slabs.pop() ?? Buffer.allocUnsafeSlow(slabSize)
}

/** Nothing refers to the slab that `chunk` is a part of any more. */
export function giveSlab(chunk: Buffer): void {
  if (slabs.length < keptSlabs) slabs.push(Buffer.from(chunk.buffer as ArrayBuffer))
}

/** A chunk of its own: the memory it is in will be read into again. */
export function copyOf(buffer: Uint8Array, bytes: number): Buffer {
  const copy = Buffer.allocUnsafe(bytes)
  copy.set(bytes === buffer.length ? buffer : buffer.subarray(0, bytes))
  return copy
}
