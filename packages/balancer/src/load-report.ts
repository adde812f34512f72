/**
 * What a server says of its load in a response header: an ORCA report (`xds.data.orca.v3.OrcaLoadReport`) as text or as JSON:
 *
 *     endpoint-load-metrics: TEXT cpu_utilization=0.4, rps_fractional=120.5, eps=0.2
 *     endpoint-load-metrics: JSON {"cpu_utilization": 0.4, "rps_fractional": 120.5}
 *
 * A server can write anything; whatever is not a report is none, and never an error.
 */

export interface LoadReport {
  /** Of the application, or of the processor when it has no idea: 0 is idle, 1 is all it can do, and more is possible. */
  readonly utilization: number
  /** Requests per second that it serves, from all who send any. */
  readonly rps: number
  /** Of them, those that fail. */
  readonly eps: number
}

/** A report of a few numbers has a hundred characters. */
const longest = 4096
const names = ['application_utilization', 'cpu_utilization', 'rps_fractional', 'eps'] as const
type Name = (typeof names)[number]

/** Undefined when there is no rate or no utilization in it: without both nothing can be said of a capacity. */
export function parseLoadReport(value: string): LoadReport | undefined {
  const match = value.length > longest ? null : /^\s*(TEXT|JSON)\s+(.*)$/is.exec(value)
  if (match === null) return undefined
  const [, format, body] = match as unknown as [string, string, string]
  const metrics = format.toUpperCase() === 'TEXT' ? fromText(body) : fromJson(body)
  const utilization = metrics.application_utilization || metrics.cpu_utilization
  const rps = metrics.rps_fractional
  if (!utilization || !rps) return undefined
  return { utilization, rps, eps: metrics.eps ?? 0 }
}

function fromText(body: string): Partial<Record<Name, number>> {
  const metrics: Partial<Record<Name, number>> = {}
  for (const pair of body.split(',')) {
    const equals = pair.indexOf('=')
    if (equals !== -1) take(metrics, pair.slice(0, equals).trim(), pair.slice(equals + 1).trim())
  }
  return metrics
}

function fromJson(body: string): Partial<Record<Name, number>> {
  const metrics: Partial<Record<Name, number>> = {}
  try {
    const report: unknown = JSON.parse(body)
    if (typeof report === 'object' && report !== null) for (const [name, value] of Object.entries(report)) take(metrics, name, value)
  } catch {
    // No JSON, no report.
  }
  return metrics
}

/** JSON made by protobuf libraries says `cpuUtilization`, and may write numbers as texts. */
function take(metrics: Partial<Record<Name, number>>, given: string, value: unknown): void {
  const name = given.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) as Name
  const number = typeof value === 'number' || (typeof value === 'string' && value !== '') ? Number(value) : Number.NaN
  if (names.includes(name) && number >= 0 && number < 1e12) metrics[name] = number
}
