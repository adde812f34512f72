/**
 * What a process has cost, from the kernel's books. `schedstat` counts nanoseconds actually run, per thread; `stat` counts clock ticks of
 * 10 ms and stands in where the kernel was built without the former. Threads are summed (V8 compiles and collects garbage on its own), and
 * so are child processes (nginx and others answer from workers).
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

/** Processes of the tree below `pid`, itself included. */
function family(pid: number): number[] {
  const members = [pid]
  for (const thread of threads(pid)) {
    const children = read(`/proc/${pid}/task/${thread}/children`).trim()
    if (children !== '') for (const child of children.split(' ')) members.push(...family(Number(child)))
  }
  return members
}

function threads(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    // A thread may end between the listing and the reading.
    return ''
  }
}

/** CPU time so far, user and system, in microseconds. */
export function cpuMicros(pid: number): number {
  let total = 0
  for (const member of family(pid)) {
    for (const thread of threads(member)) {
      const schedstat = read(`/proc/${member}/task/${thread}/schedstat`)
      total += schedstat === '' ? ticks(member, thread) * 10_000 : Number(schedstat.slice(0, schedstat.indexOf(' '))) / 1000
    }
  }
  return total
}

function ticks(pid: number, thread: string): number {
  const stat = read(`/proc/${pid}/task/${thread}/stat`)
  // The second field is the command in parentheses and may hold spaces; utime and stime are the 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11] ?? 0) + Number(fields[12] ?? 0)
}

/** Resident memory in bytes. */
export function residentBytes(pid: number): number {
  return sumStatus(pid, 'VmRSS')
}

/** Highest resident memory since `resetPeak`, in bytes. */
export function peakBytes(pid: number): number {
  return sumStatus(pid, 'VmHWM')
}

/** Lets the peak start again from what is resident now. */
export function resetPeak(pid: number): void {
  for (const member of family(pid)) writeFileSync(`/proc/${member}/clear_refs`, '5')
}

function sumStatus(pid: number, field: string): number {
  let kib = 0
  for (const member of family(pid)) kib += Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(read(`/proc/${member}/status`))?.[1] ?? 0)
  return kib * 1024
}
