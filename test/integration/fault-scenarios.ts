/**
 * What can happen to backends while traffic runs, as scenarios that a test asserts on and `npm run faults` writes into docs/health.md. Each runs
 * three real servers, one of which (the patient) gets into trouble, under a fixed rate of GETs, so that a proxy that answers fast with errors does not
 * get to answer more requests. What is counted is what a client sees.
 */
import { Agent, get as httpGet } from 'node:http'
import type { HealthPolicy, ProxyOptions } from '@weir/core'
import { failureMemory } from '@weir/core'
import { activeCheck, outlierDetection, slowStart } from '@weir/health'
import { faults, type TestUpstream, testUpstream } from '@weir/testing'
import { startProxy } from './setup.ts'

export interface FaultScenario {
  readonly name: string
  /** What happens to the patient; `time` says how far the run is, from 0 to 1. Called every 25 ms. */
  readonly play: (patient: TestUpstream, time: number, memory: Record<string, unknown>) => void
}

const fine = { body: 'fine' }

/** Calls `enter` and `leave` when the part of the run from `from` to `to` begins and ends. */
function during(
  from: number,
  to: number,
  enter: (patient: TestUpstream) => void,
  leave: (patient: TestUpstream) => void,
): FaultScenario['play'] {
  return (patient, time, memory) => {
    const inside = time >= from && time < to
    if (inside && memory.inside !== true) enter(patient)
    if (!inside && memory.inside === true) leave(patient)
    memory.inside = inside
  }
}

const kill = (patient: TestUpstream): void => void patient.kill()
const restart = (patient: TestUpstream): void => void patient.restart()
const answers = (answer: Parameters<TestUpstream['route']>[1]) => (patient: TestUpstream) => patient.route('*', answer)

export const faultScenarios: readonly FaultScenario[] = [
  { name: 'nothing happens', play: () => {} },
  { name: 'killed', play: during(0.2, 2, kill, restart) },
  { name: 'killed and restarted', play: during(0.2, 0.6, kill, restart) },
  {
    name: 'flapping',
    play: (patient, time, memory) => {
      const down = time > 0.1 && Math.floor(time * 12) % 2 === 1
      if (down && memory.down !== true) kill(patient)
      if (!down && memory.down === true) restart(patient)
      memory.down = down
    },
  },
  { name: 'stalled: takes requests, answers none', play: during(0.2, 2, answers(faults.stall(60_000)), answers(fine)) },
  { name: 'slow: 300 ms instead of 1', play: during(0.2, 2, answers(faults.stall(300, 'fine')), answers(fine)) },
  { name: 'answers 500 to everything', play: during(0.2, 2, answers({ status: 500, body: 'oops' }), answers(fine)) },
  {
    name: 'resets every third request',
    play: (patient, time, memory) => {
      if (time < 0.2 || memory.begun === true) return
      memory.begun = true
      let count = 0
      patient.route('*', (_req, res, wire) => {
        if (++count % 3 === 0) wire.reset()
        else res.end('fine')
      })
    },
  },
]

export interface FaultSetup {
  readonly name: string
  readonly options: () => Partial<ProxyOptions>
}

export const faultSetups: readonly FaultSetup[] = [
  { name: 'no health, no retry', options: () => ({ health: [], retry: false }) },
  { name: "core's default", options: () => ({ health: [failureMemory({ penalty: '1s' })] }) },
  {
    name: 'active checks, outlier detection, slow start',
    options: () => ({
      health: [
        activeCheck({ path: '/health', interval: 100, edgeInterval: 50, timeout: 150, rise: 2, fall: 2 }),
        outlierDetection({
          serverErrors: 5,
          localErrors: 3,
          interval: 250,
          baseEjection: 500,
          maxEjected: 0.34,
          latency: { factor: 5, minHosts: 3, minRequests: 10 },
        }),
        slowStart({ window: 500 }),
      ] as HealthPolicy[],
      retry: { on: ['connect', 'reset', 'timeout', 500], perTryTimeout: 400 },
    }),
  },
]

export interface FaultResult {
  readonly requests: number
  /** Answers that are no 200, and connections that broke. */
  readonly errors: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** Requests that the patient was sent after trouble began. */
  readonly toPatient: number
}

/** One scenario under one set-up. @param seconds how long it runs @param rate requests per second */
export async function playFault(scenario: FaultScenario, setup: FaultSetup, seconds: number, rate: number): Promise<FaultResult> {
  const upstreams = await Promise.all(['a', 'b', 'c'].map((name) => testUpstream({ '/health': 'fine', '*': fine }, { name })))
  const [patient] = upstreams as [TestUpstream, ...TestUpstream[]]
  const proxy = await startProxy({
    upstreams: upstreams.map(({ url }) => url),
    timeouts: { head: 1000, connect: 500 },
    ...setup.options(),
  })
  await proxy.proxy.start()
  const agent = new Agent({ keepAlive: true })
  const times: number[] = []
  let errors = 0
  const ask = (): Promise<void> =>
    new Promise((resolve) => {
      const began = performance.now()
      const over = (good: boolean): void => {
        if (!good) errors++
        times.push(performance.now() - began)
        resolve()
      }
      httpGet({ port: proxy.port, host: '127.0.0.1', agent, path: '/' }, (res) => {
        let text = ''
        res.on('data', (chunk: Buffer) => {
          text += chunk
        })
        res.on('error', () => {})
        res.on('close', () => over(res.statusCode === 200 && text === 'fine'))
      }).on('error', () => over(false))
    })
  const start = performance.now()
  const running: Promise<void>[] = []
  const memory: Record<string, unknown> = {}
  for (let sent = 0; ; ) {
    const elapsed = (performance.now() - start) / 1000
    if (elapsed >= seconds) break
    scenario.play(patient, elapsed / seconds, memory)
    for (; sent < elapsed * rate; sent++) running.push(ask())
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await Promise.all(running)
  agent.destroy()
  await proxy[Symbol.asyncDispose]()
  for (const upstream of upstreams) await upstream.close()
  times.sort((a, b) => a - b)
  const at = (share: number): number => times[Math.min(times.length - 1, Math.floor(times.length * share))] as number
  return { requests: times.length, errors, p50: at(0.5), p99: at(0.99), toPatient: patient.requests.length }
}
