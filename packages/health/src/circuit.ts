/**
 * The states of a circuit breaker. Pure: an event goes in, the next state comes out.
 *
 *   closed ──trip──▶ open ──its time is over──▶ half-open ──enough trials pass──▶ recovering ──ramp is over──▶ closed
 *                     ▲                            │ a trial fails                    │ trip
 *                     └────────────────────────────┴──────────────────────────────────┘   (open for longer each time)
 */

export type Circuit =
  | { readonly kind: 'closed' }
  /** `times` in a row, without having been closed in between. */
  | { readonly kind: 'open'; readonly times: number; readonly until: number }
  | { readonly kind: 'half-open'; readonly times: number; readonly passed: number }
  | { readonly kind: 'recovering'; readonly times: number; readonly since: number }

export type CircuitEvent =
  /** The limits of the closed circuit are exceeded. */
  | { readonly kind: 'trip'; readonly now: number }
  | { readonly kind: 'time'; readonly now: number }
  /** A trial has ended. */
  | { readonly kind: 'trial'; readonly passed: boolean; readonly now: number }

export interface CircuitTimes {
  /** How long it is open at first; twice as long each further time, up to `maxOpen`. */
  readonly open: number
  readonly maxOpen: number
  /** Passes that end the half-open state. */
  readonly trials: number
  /** Length of the ramp; 0 for none. */
  readonly recovery: number
}

export function nextCircuit(circuit: Circuit, event: CircuitEvent, settings: CircuitTimes): Circuit {
  switch (circuit.kind) {
    case 'closed':
      return event.kind === 'trip' ? opened(1, event.now, settings) : circuit
    case 'open':
      return event.kind === 'time' && event.now >= circuit.until ? { kind: 'half-open', times: circuit.times, passed: 0 } : circuit
    case 'half-open':
      if (event.kind !== 'trial') return circuit
      if (!event.passed) return opened(circuit.times + 1, event.now, settings)
      if (circuit.passed + 1 < settings.trials) return { ...circuit, passed: circuit.passed + 1 }
      return settings.recovery === 0 ? { kind: 'closed' } : { kind: 'recovering', times: circuit.times, since: event.now }
    case 'recovering':
      if (event.kind === 'trip') return opened(circuit.times + 1, event.now, settings)
      return event.kind === 'time' && event.now >= circuit.since + settings.recovery ? { kind: 'closed' } : circuit
  }
}

function opened(times: number, now: number, { open, maxOpen }: CircuitTimes): Circuit {
  return { kind: 'open', times, until: now + Math.min(maxOpen, open * 2 ** Math.min(times - 1, 30)) }
}
