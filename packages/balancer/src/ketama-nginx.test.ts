// The claim is "as nginx decides", so an nginx decides beside it.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, get, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { refusedPort, stubExchange, stubUpstream } from '@weir/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { ketama } from './ketama.ts'

// Where nginx is, if it is, is seldom in the PATH of those who are not root.
const nginx = ['nginx', '/usr/sbin/nginx', '/usr/local/sbin/nginx'].find((path) => spawnSync(path, ['-v']).status === 0)
const cleanups: (() => unknown)[] = []

afterAll(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup()
})

async function listen(answer: string): Promise<number> {
  const server: Server = createServer((_, response) => response.end(answer)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanups.push(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  return (server.address() as AddressInfo).port
}

/** One request; the body of the answer. */
async function ask(socketPath: string, path: string): Promise<string> {
  const request = get({ socketPath, path, headers: { host: 'nginx.test' } })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  let body = ''
  for await (const chunk of response.setEncoding('utf8')) body += chunk
  return body
}

/** Runs nginx in the foreground until the end of the file, on a Unix socket: it cannot be asked which port it got. Resolves when it answers. */
async function startNginx(binary: string, servers: readonly string[]): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'weir-nginx-'))
  const socket = join(folder, 'listen')
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log; events {}
    http { access_log off; ${paths}
      upstream all { hash $arg_k consistent; ${servers.map((server) => `server ${server};`).join(' ')} }
      server { listen unix:${socket}; location / { proxy_pass http://all; } } }`,
  )
  const child: ChildProcess = spawn(binary, ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', join(folder, 'error.log')], {
    stdio: 'ignore',
  })
  cleanups.push(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM')
      await once(child, 'exit')
    }
    rmSync(folder, { recursive: true, force: true })
  })
  for (let tries = 0; tries < 200; tries++) {
    if (child.exitCode !== null) throw new Error(`nginx ended with ${child.exitCode}`)
    try {
      await ask(socket, '/?k=ready')
      return socket
    } catch {
      // nginx says nowhere that it listens: ask until it answers.
      await pause(20)
    }
  }
  throw new Error('nginx does not answer')
}

async function asked(base: string, keys: readonly string[]): Promise<string[]> {
  const answers: string[] = []
  for (let i = 0; i < keys.length; i += 16)
    answers.push(...(await Promise.all(keys.slice(i, i + 16).map((key) => ask(base, `/?k=${key}`)))))
  return answers
}

const keys = Array.from({ length: 400 }, (_, i) => `user-${(i * 7_919).toString(36)}${'%20x'.repeat(i % 3)}`)

if (nginx === undefined) {
  if (process.env.WEIR_REQUIRE_ALL === '1') it('needs nginx', () => expect.unreachable('nginx is not installed'))
  else it.skip('nginx is not installed: the ring is not compared with a real one')
} else
  describe('beside a real nginx with hash ... consistent', () => {
    it('every key goes to the same server, by weight', async () => {
      const weights = [1, 3, 1, 2, 10]
      const ports = await Promise.all(weights.map((_, i) => listen(String(i))))
      const base = await startNginx(
        nginx,
        ports.map((port, i) => `127.0.0.1:${port}${weights[i] === 1 ? '' : ` weight=${weights[i]}`}`),
      )
      const upstreams = ports.map((port, i) => stubUpstream({ id: `http://127.0.0.1:${port}`, weight: weights[i] as number }))
      const balancer = ketama({ key: 'query:k' })
      balancer.update(upstreams)
      const answers = await asked(base, keys)
      expect(new Set(answers).size).toBe(weights.length)
      expect(keys.map((k) => String(upstreams.indexOf(balancer.pick(stubExchange({ url: `/?k=${k}` })) as never)))).toEqual(answers)
    })

    it('and when a server fails, to the same next one', async () => {
      const dead = await refusedPort()
      cleanups.push(() => dead.close())
      const ports = [dead.port, await listen('1'), await listen('2'), await listen('3')]
      // max_fails=0: nginx tries the dead one anew for every request, and goes on along its ring.
      const base = await startNginx(
        nginx,
        ports.map((port) => `127.0.0.1:${port} max_fails=0`),
      )
      const upstreams = ports.map((port) => stubUpstream({ id: `http://127.0.0.1:${port}` }))
      const balancer = ketama({ key: 'query:k' })
      balancer.update(upstreams)
      const tried = upstreams.slice(0, 1)
      const picks = keys.map((k) => {
        const exchange = { ...stubExchange({ url: `/?k=${k}` }), tried: [] as typeof tried }
        if (balancer.pick(exchange) === upstreams[0]) exchange.tried = tried
        return String(upstreams.indexOf(balancer.pick(exchange) as never))
      })
      expect(picks).toEqual(await asked(base, keys))
    })

    it('and by unix socket, or by a server name without a port', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'weir-sockets-'))
      cleanups.push(() => rmSync(folder, { recursive: true, force: true }))
      const paths = [0, 1, 2].map((i) => join(folder, `${i}.sock`))
      for (const [i, path] of paths.entries()) {
        const server = createServer((_, response) => response.end(String(i))).listen(path)
        await once(server, 'listening')
        cleanups.push(async () => {
          server.closeAllConnections()
          server.close()
          await once(server, 'close')
        })
      }
      const base = await startNginx(
        nginx,
        paths.map((path) => `unix:${path}`),
      )
      const upstreams = paths.map((path) => stubUpstream({ id: `unix://${path}` }))
      const balancer = ketama({ key: 'query:k' })
      balancer.update(upstreams)
      expect(keys.map((k) => String(upstreams.indexOf(balancer.pick(stubExchange({ url: `/?k=${k}` })) as never)))).toEqual(
        await asked(base, keys),
      )
    })
  })
