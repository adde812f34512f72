import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const source = (name: string): string => fileURLToPath(new URL(`./packages/${name}/src/index.ts`, import.meta.url))

// Tests run against the sources, so that a failing line is a line one can edit; the built packages are exercised by test/consumer.
export default defineConfig({
  resolve: {
    alias: {
      '@weir/access': source('access'),
      '@weir/cluster': source('cluster'),
      '@weir/cache': source('cache'),
      '@weir/compress': source('compress'),
      '@weir/core': source('core'),
      '@weir/balancer': source('balancer'),
      '@weir/health': source('health'),
      '@weir/discovery': source('discovery'),
      '@weir/rate-limit': source('rate-limit'),
      '@weir/redis': source('redis'),
      '@weir/sticky': source('sticky'),
      '@weir/testing': source('testing'),
    },
  },
  test: {
    include: ['packages/*/src/**/*.test.ts', 'test/integration/**/*.test.ts', 'test/conformance/**/*.test.ts', 'test/checks/**/*.test.ts'],
    testTimeout: 20_000,
    hookTimeout: 20_000,
    pool: 'forks',
  },
})
