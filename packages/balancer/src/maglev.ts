/**
 * Maglev hashing: the most even of the hash strategies, at the price that a change of membership moves some more keys than it must. For servers
 * whose load has to be level, and to whom a key that moves is a cold cache and not a lost session.
 */
import { type Balancer, OptionReader } from '@weir/core'
import { evenHash, HashBalancer } from './hash-balancer.ts'
import { type HashKeyOptions, hashKeyNames, readHashKey } from './hash-key.ts'
import { isPrime, MaglevTable } from './maglev-table.ts'
import { CellSequence } from './sequence.ts'

export interface MaglevOptions extends HashKeyOptions {
  /**
   * Cells of the table, a prime up to 5,000,011. Default 65,537. At least a hundred times the number of upstreams, or shares get coarse and
   * changes move more keys; a change of membership takes longer in proportion.
   */
  readonly tableSize?: number
}

/**
 * Shares are even to one cell of the table. O(1) per pick; a change of membership takes some 8 ms with 10 upstreams, 20 ms with 10,000, and moves
 * about twice the least number of keys. A key whose upstream is tried or full goes to the owner of another cell, the same one each time.
 *
 * Take `hash` where keys that move are dear.
 *
 * @throws OptionsError
 */
export function maglev(options: MaglevOptions): Balancer {
  const read = new OptionReader('maglev')
  const given = read.object(options, [...hashKeyNames, 'tableSize'])
  const key = readHashKey(read, given, evenHash)
  const range = { min: 2, max: 5_000_011, integer: true }
  const tableSize = read.number('tableSize', given.tableSize, 65_537, range)
  if (Number.isInteger(tableSize) && !isPrime(tableSize)) read.problem('tableSize', tableSize, 'a prime, such as 65537 or 655373')
  read.check()
  return new HashBalancer('maglev', key, (upstreams) => new CellSequence(upstreams, new MaglevTable(upstreams, tableSize)))
}
