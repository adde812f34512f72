/**
 * SRV records (RFC 2782) in terms of a pool. Priorities become tiers: the lowest number is tier 0, whatever it is. Weights become weights, with two
 * differences to see to. Weight 0 means "hardly ever" there and "never" here: among others it becomes 1 while they are scaled up, and among
 * its like everybody gets 1. And a record is one target with one weight, however many addresses that has: they share it.
 */
import type { SrvRecord } from 'node:dns'

export interface Target extends SrvRecord {
  readonly addresses: readonly string[]
}

export interface Server {
  readonly name: string
  readonly address: string
  readonly port: number
  readonly priority: number
  readonly weight: number
}

/** How much more than a record of weight 0 one of weight 1 gets, where the range of weights allows it. */
const scale = 100
const highest = 65_535
/** As far as a pool counts. */
const lastTier = 1000

/** Sorted by tier, name, port and address. */
export function serversOf(targets: readonly Target[]): Server[] {
  // A tier whose names have no addresses just now keeps its place.
  const tiers = [...new Set(targets.map(({ priority }) => priority))].sort((a, b) => a - b)
  const servers = tiers.flatMap((tier, index) => {
    const priority = Math.min(index, lastTier)
    const records = targets.filter((target) => target.priority === tier && target.addresses.length > 0)
    const weigh = weights(records)
    return records.flatMap((record) => {
      const { name, port, addresses } = record
      return addresses.map((address): Server => ({ name, address, port, priority, weight: weigh(record) }))
    })
  })
  return distinct(servers.sort(compare))
}

/** The weight of each address of a record. */
function weights(records: readonly Target[]): (record: Target) => number {
  const most = Math.max(...records.map(({ weight }) => weight))
  if (most === 0) return () => 1
  const counts = new Set(records.map(({ addresses }) => addresses.length))
  const asTheyAre = counts.size === 1 && records.every(({ weight }) => weight > 0)
  const factor = asTheyAre ? 1 : Math.max(1, Math.min(scale, Math.floor(highest / most)))
  return ({ weight, addresses }) => (asTheyAre ? weight : Math.max(1, Math.round((weight * factor) / addresses.length)))
}

/** The same address and port under two names, or in two tiers, is one server: in its best tier, with the weight of both. */
function distinct(servers: readonly Server[]): Server[] {
  const byPlace = new Map<string, Server>()
  for (const server of servers) {
    const place = `${server.address} ${server.port}`
    const known = byPlace.get(place)
    if (known === undefined) byPlace.set(place, server)
    else if (known.priority === server.priority) byPlace.set(place, { ...known, weight: Math.min(highest, known.weight + server.weight) })
  }
  return [...byPlace.values()]
}

function compare(a: Server, b: Server): number {
  return a.priority - b.priority || order(a.name, b.name) || a.port - b.port || order(a.address, b.address)
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
