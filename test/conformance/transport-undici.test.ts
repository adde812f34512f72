import { undiciTransport } from '@weir/core'
import { transportConformance } from '@weir/testing'
import { describe, it } from 'vitest'

describe('undiciTransport', () => {
  for (const { name, run } of transportConformance((options) => undiciTransport(options), {
    hostFieldAsGiven: false,
    trailingWhitespace: true,
  }))
    it(name, run)
})
