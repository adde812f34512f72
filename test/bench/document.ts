/**
 * docs/performance.md. Generated sections are replaced; every other section of a file that exists already is kept, since what a profile
 * showed has to be written by somebody who looked at it.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { dirname } from 'node:path'
import { installed, machine, packageVersion, programVersion } from './machine.ts'
import type { BenchOptions, Section } from './options.ts'

// Read when the run begins: afterwards it is the run's own.
const [busy = 0] = loadavg()

const generated = /^(Machine and versions|Method|P\d+: .*)$/
const placeholder = `## Where the microseconds go

To be written from a profile.
`

const packages = ['undici', 'http-proxy-3', 'httpxy', 'http-proxy-middleware', 'fast-proxy', '@fastify/reply-from', 'fastify']

export function writeDocument(file: string, sections: readonly Section[], options: BenchOptions): void {
  const kept = existsSync(file) ? sectionsOf(readFileSync(file, 'utf8')).filter(([title]) => !generated.test(title)) : []
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(
    file,
    [
      `# Performance

Written by \`pnpm bench\`. Ratios are what to read: numerator and denominator were measured within the same minute on the same machine.
Absolute figures belong to the machine named below and to no other.
`,
      environment(options),
      method(options),
      ...sections.map(render),
      ...(kept.length === 0 ? [placeholder] : kept.map(([, text]) => text)),
    ].join('\n'),
  )
}

export function render({ id, title, goal, text, failures }: Section): string {
  const failed = failures.length === 0 ? '' : `\nFailed: ${failures.map((failure) => failure.split('\n', 1)[0]).join('; ')}\n`
  return `## ${id}: ${title}\n\nGoal: ${goal}.\n\n${text}\n${failed}`
}

export function environment({ rounds, duration }: BenchOptions): string {
  const { cpu, cores, kernel, memoryGiB } = machine()
  const programs = ['wrk', 'nginx', 'haproxy', 'caddy'].map((name) => `${name} ${installed(name) ? programVersion(name) : 'absent'}`)
  return `## Machine and versions

- ${new Date().toISOString().slice(0, 10)}; ${rounds} ${rounds === 1 ? 'round' : 'rounds'} of ${duration} s; load average before it ${busy.toFixed(1)}${
    busy > cores / 4 ? ' (others were at work: spreads are wide and absolute figures low)' : ''
  }
- ${cpu}, ${cores} cores, ${memoryGiB} GiB, ${kernel}
- Node ${process.versions.node}; ${packages.map((name) => `${name} ${packageVersion(name)}`).join(', ')}
- ${programs.join(', ')}
- load from ${installed('wrk') ? 'wrk' : 'autocannon (wrk is absent: throughput and latency describe autocannon as much as the proxy)'}, upstream ${
    installed('nginx') ? 'nginx, one worker' : 'a Node server'
  }
`
}

function method({ rounds, quick }: BenchOptions): string {
  return `## Method
${quick ? '\nThis was a smoke run, without warm-up: its figures mean nothing.\n' : ''}
Each contestant is a process of its own, started afresh for each of the ${rounds} rounds and warmed up for two seconds (P3: six); the upstream is another process, the
load generator a third, all on loopback. A round runs all contestants one after the other, the floor and Weir at its beginning and again at
its end; in P1, P3 and P4 those that the goal names are up at the same time instead and take turns, six of each, and the round's ratio is the median over the turns. **CPU per request** is the user and system time that the kernel booked on the proxy's process (all threads, all workers) during the
measured seconds, divided by the requests answered in them. A ratio is taken within a round; the median over the rounds is reported. The
load is closed-loop: as many requests in flight as connections, each sent when the one before is answered. p50 and p99 are therefore the
queue in front of a saturated core. "Cores busy" near or above 1 (V8 also compiles and collects on other threads) says that the proxy was the
bottleneck; below, that load generator and upstream were, which share the rest of the machine, or somebody else's work. Request heads are as short as wrk's
(one field), response heads as nginx's (five).
`
}

function sectionsOf(text: string): [title: string, text: string][] {
  return text
    .split(/^(?=## )/m)
    .slice(1)
    .map((part) => [part.slice(3, part.indexOf('\n')).trim(), `${part.trimEnd()}\n`])
}
