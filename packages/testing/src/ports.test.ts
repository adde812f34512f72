import { type AddressInfo, createServer, type Server } from 'node:net'
import { describe, expect, it } from 'vitest'
import { blackHolePort, holdPort, refusedPort } from './ports.ts'
import { rawConnect } from './raw-client.ts'

describe('ports that do not answer', () => {
  it('refusedPort refuses, and nobody else is given it', async () => {
    await using dead = await refusedPort()
    for (let i = 0; i < 20; i++) await expect(rawConnect(dead.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    const servers = Array.from({ length: 50 }, () => createServer().listen(0, '127.0.0.1'))
    try {
      await Promise.all(servers.map((server) => new Promise((resolve) => server.once('listening', resolve))))
      expect(servers.map((server) => (server.address() as { port: number }).port)).not.toContain(dead.port)
    } finally {
      for (const server of servers) server.close()
    }
  })

  it('blackHolePort lets a connect hang', async () => {
    await using hole = await blackHolePort()
    await expect(rawConnect(hole.port, { deadline: 200 })).rejects.toMatchObject({ reason: 'deadline' })
  })

  it('a port held by number refuses, and can be listened on again before the hold ends', async () => {
    const listen = (port: number): Promise<Server> =>
      new Promise((resolve, reject) => {
        const server = createServer((socket) => socket.end())
        server.once('error', reject).listen(port, '127.0.0.1', () => resolve(server))
      })
    const first = await listen(0)
    const { port } = first.address() as AddressInfo
    first.close()
    const hold = await holdPort(port)
    await expect(rawConnect(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    const second = await listen(port)
    await hold.release()
    await using connection = await rawConnect(port)
    expect(await connection.closed).toBe('fin')
    second.close()
  })
})
