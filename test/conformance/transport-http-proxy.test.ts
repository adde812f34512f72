import { httpProxyTransport } from '@weir/core'
import { transportConformance } from '@weir/testing'
import { describe, it } from 'vitest'

describe('httpProxyTransport', () => {
  for (const { name, run } of transportConformance((options) => httpProxyTransport(options))) it(name, run)
})
