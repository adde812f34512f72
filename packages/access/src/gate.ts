/**
 * What every stage that refuses has in common: it counts, it tells, and on a dry run it does both and refuses nothing. A dry run is how a rule
 * goes into production: switch it on, look at what it would have refused, then mean it.
 */
import type { Exchange, HeaderFields, Reply, Stage } from '@weir/core'
import { type AccessDecision, decisions } from './events.ts'

export interface GateStats {
  readonly allowed: number
  readonly refused: number
  /** Would have been refused, but for `dryRun`. */
  readonly dry: number
}

/** A stage that counts. */
export interface AccessStage<S = GateStats> extends Stage {
  /** Since the stage was made. */
  stats(): S
}

const phrases: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  410: 'Gone',
  413: 'Content Too Large',
  414: 'URI Too Long',
  431: 'Request Header Fields Too Large',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
}

/** Short, and silent about the inside: why exactly is for the events. A refusal depends on who asks, so no cache may keep it. */
export function refusal(status: number, headers: HeaderFields = {}, body?: string): Reply {
  return {
    status,
    headers: { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store', ...headers },
    body: body ?? `${status} ${phrases[status] ?? 'Refused'}\n`,
  }
}

export class Gate {
  readonly stage: string
  readonly dryRun: boolean
  allowed: number = 0
  refused: number = 0
  dry: number = 0

  constructor(stage: string, dryRun: boolean) {
    this.stage = stage
    this.dryRun = dryRun
  }

  /** The reply, or undefined on a dry run. */
  refuse(exchange: Exchange, reply: Reply, reason: string, dryRun: boolean = this.dryRun): Reply | undefined {
    if (dryRun) this.dry++
    else this.refused++
    this.tell(exchange, dryRun ? 'dry' : 'refused', reply.status, reason)
    return dryRun ? undefined : reply
  }

  tell(exchange: Exchange, verdict: AccessDecision['verdict'], status: number | undefined, reason: string): void {
    if (decisions.hasSubscribers) decisions.publish({ exchange, stage: this.stage, verdict, status, reason } satisfies AccessDecision)
  }

  stats(): GateStats {
    return { allowed: this.allowed, refused: this.refused, dry: this.dry }
  }
}
