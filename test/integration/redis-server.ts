/**
 * Real Redis and Valkey servers for tests: started on a free port, without persistence, ended by their process id. A server can be stopped and started again on
 * its port, and frozen (SIGSTOP) so that it takes connections and answers nothing.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

export type RedisProgram = 'redis-server' | 'valkey-server'

const known: readonly RedisProgram[] = ['redis-server', 'valkey-server']
/** Those of them that this machine has. */
export const redisPrograms: readonly RedisProgram[] = known.filter((name) => spawnSync(name, ['--version']).status === 0)
export const missingPrograms: readonly RedisProgram[] = known.filter((name) => !redisPrograms.includes(name))

export interface RedisServer extends AsyncDisposable {
  readonly port: number
  /** Ends it at once, as a crash would. */
  kill(): Promise<void>
  /** On the same port, empty. */
  restart(): Promise<void>
  freeze(): void
  thaw(): void
  /** One command, by the command line client. */
  command(...args: readonly string[]): string
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    socket.write('PING\r\n')
    const [answer] = (await once(socket, 'data')) as [Buffer]
    return answer.toString().startsWith('+PONG')
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

export async function redisServer(program: RedisProgram, flags: readonly string[] = []): Promise<RedisServer> {
  const cli = program.replace('server', 'cli')
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'weir-redis-'))
  let child: ChildProcess | undefined
  const start = async (): Promise<void> => {
    const started = spawn(
      program,
      ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no', ...flags],
      { stdio: 'ignore' },
    )
    child = started
    for (let tries = 0; !(await answers(port)); tries++) {
      if (started.exitCode !== null || tries > 400) throw new Error(`${program} did not start on port ${port}`)
      await pause(10)
    }
  }
  const kill = async (): Promise<void> => {
    const running = child
    child = undefined
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return
    const ended = once(running, 'exit')
    running.kill('SIGKILL')
    await ended
  }
  await start()
  return {
    port,
    kill,
    restart: async () => {
      await kill()
      await start()
    },
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    command: (...args) => {
      const { stdout, stderr, status } = spawnSync(cli, ['-p', String(port), ...args], { encoding: 'utf8' })
      if (status !== 0) throw new Error(`${args.join(' ')}: ${stderr}`)
      return stdout.trim()
    },
    [Symbol.asyncDispose]: async () => {
      await kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export interface RedisSentinel extends AsyncDisposable {
  readonly port: number
}

/** One sentinel that watches `primary` under the name `shared`, and promotes its replica when it has been gone for 300 ms. */
export async function redisSentinel(program: RedisProgram, primary: RedisServer): Promise<RedisSentinel> {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'weir-sentinel-'))
  // It keeps its state in its configuration, so that must be a file of its own.
  const file = join(folder, 'sentinel.conf')
  writeFileSync(
    file,
    `port ${port}
bind 127.0.0.1
dir ${folder}
sentinel monitor shared 127.0.0.1 ${primary.port} 1
sentinel down-after-milliseconds shared 300
sentinel failover-timeout shared 2000
`,
  )
  const child = spawn(program, [file, '--sentinel'], { stdio: 'ignore' })
  const close = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
    }
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    for (let tries = 0; !(await answers(port)); tries++) {
      if (child.exitCode !== null || tries > 400) throw new Error(`the sentinel of ${program} did not start on port ${port}`)
      await pause(10)
    }
    const knows = (): string =>
      spawnSync(program.replace('server', 'cli'), ['-p', String(port), 'SENTINEL', 'replicas', 'shared'], { encoding: 'utf8' }).stdout
    for (let tries = 0; !knows().includes('127.0.0.1'); tries++) {
      if (tries > 200) throw new Error('the sentinel has not found the replica')
      await pause(100)
    }
    return { port, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}

export interface RedisCluster extends AsyncDisposable {
  readonly nodes: readonly RedisServer[]
}

/** Three primaries that share the slots. */
export async function redisCluster(program: RedisProgram): Promise<RedisCluster> {
  const nodes: RedisServer[] = []
  const close = async (): Promise<void> => void (await Promise.all(nodes.map((node) => node[Symbol.asyncDispose]())))
  try {
    for (let i = 0; i < 3; i++) nodes.push(await redisServer(program, ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000']))
    const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`)
    const made = spawnSync(program.replace('server', 'cli'), ['--cluster', 'create', ...addresses, '--cluster-yes'], { encoding: 'utf8' })
    if (made.status !== 0) throw new Error(`no cluster: ${made.stdout} ${made.stderr}`)
    for (let tries = 0; !nodes.every((node) => node.command('CLUSTER', 'INFO').includes('cluster_state:ok')); tries++) {
      if (tries > 400) throw new Error('the cluster does not agree')
      await pause(25)
    }
    return { nodes, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}
