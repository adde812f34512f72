import { describe, expect, it } from 'vitest'
import { wrongImports, wrongManifests } from './import-direction.ts'

const one = (path: string, text: string): string[] => wrongImports([{ path, text }])

describe('import direction of sources', () => {
  it('accepts core, node, own files and foreign packages', () => {
    const text = [
      `import { isPickable, type Balancer } from '@weir/core'`,
      `import { createHash } from 'node:crypto'`,
      `import { LRUCache } from 'lru-cache'`,
      `export { hash } from './hash.ts'`,
      `// import { x } from '@weir/sticky'`,
      `const text = "import { y } from '@weir/cache'"`,
    ].join('\n')
    expect(one('packages/balancer/src/index.ts', text)).toEqual([])
  })

  it('refuses a sibling package, with file and line', () => {
    expect(one('packages/sticky/src/table.ts', `\nimport { p2c } from '@weir/balancer'\n`)).toEqual([
      `packages/sticky/src/table.ts:2 imports '@weir/balancer': only @weir/core may be imported`,
    ])
  })

  it('refuses types of a sibling too, outside adapters', () => {
    expect(one('packages/sticky/src/table.ts', `import type { P } from '@weir/balancer'`)).toHaveLength(1)
  })

  it.each([
    `import { x } from '@weir/balancer'`,
    `import type { X } from '@weir/balancer'`,
    `export * from '@weir/balancer'`,
    `export type { X } from '@weir/balancer'`,
    `const lazy = () => import('@weir/balancer')`,
    `type X = import('@weir/balancer').X`,
    `import '@weir/balancer'`,
    `import legacy = require('@weir/balancer')`,
  ])('core may not write %s', (text) => {
    expect(one('packages/core/src/proxy.ts', text)).toEqual([
      `packages/core/src/proxy.ts:1 imports '@weir/balancer': core imports none of our packages`,
    ])
  })

  it('lets adapters import types of ports, not their values', () => {
    expect(one('packages/redis/src/a.ts', `import type { Store } from '@weir/cache'\nexport type { X } from '@weir/sticky'`)).toEqual([])
    expect(one('packages/redis/src/a.ts', `import { memoryStore } from '@weir/cache'`)).toHaveLength(1)
    // Under verbatimModuleSyntax this still loads the module.
    expect(one('packages/redis/src/a.ts', `import { type Store } from '@weir/cache'`)).toHaveLength(1)
  })

  it('closes deep imports, also of core and in tests', () => {
    for (const path of ['packages/cache/src/a.ts', 'packages/cache/src/a.test.ts', 'packages/redis/src/a.ts'])
      expect(one(path, `import type { X } from '@weir/core/dist/stage.js'`)[0]).toContain('deep imports are closed')
  })

  it('refuses relative paths that leave the package, and the own name', () => {
    expect(one('packages/cache/src/a.ts', `import { x } from '../../core/src/stage.ts'`)[0]).toContain('leaves packages/cache/src')
    expect(one('packages/cache/src/deep/a.ts', `import { x } from '../b.ts'`)).toEqual([])
    expect(one('packages/cache/src/a.ts', `import { x } from '@weir/cache'`)[0]).toContain('relative paths')
  })

  it('lets test files import the test kit, in every package', () => {
    expect(one('packages/core/src/a.test.ts', `import { fakeUpstream } from '@weir/testing'`)).toEqual([])
    expect(one('packages/core/src/a.ts', `import { fakeUpstream } from '@weir/testing'`)).toHaveLength(1)
    expect(one('packages/cache/src/a.test.ts', `import { p2c } from '@weir/balancer'`)).toHaveLength(1)
  })
})

describe('import direction of manifests', () => {
  const core = { '@weir/core': 'workspace:^' }

  it('accepts core as a peer, and the test kit for development', () => {
    const manifest = { name: '@weir/cache', peerDependencies: core, devDependencies: { ...core, '@weir/testing': 'workspace:^' } }
    expect(wrongManifests([{ folder: 'cache', manifest }])).toEqual([])
  })

  it('refuses ours as a plain dependency, a sibling as a peer, and a missing peer', () => {
    const wrong = wrongManifests([
      { folder: 'cache', manifest: { name: '@weir/cache', dependencies: core } },
      { folder: 'sticky', manifest: { name: '@weir/sticky', peerDependencies: { ...core, '@weir/cache': 'workspace:^' } } },
      { folder: 'core', manifest: { name: '@weir/core', dependencies: { '@weir/balancer': 'workspace:^' } } },
      { folder: 'tls', manifest: { name: '@weir/tsl', peerDependencies: core } },
    ])
    expect(wrong.map((line) => line.split(':')[0])).toEqual([
      `packages/cache/package.json dependencies '@weir/core'`,
      `packages/cache/package.json peerDependencies '@weir/core'`,
      `packages/sticky/package.json peerDependencies '@weir/cache'`,
      `packages/core/package.json dependencies '@weir/balancer'`,
      `packages/tls/package.json name '@weir/tsl'`,
    ])
  })
})
