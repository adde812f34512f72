/**
 * What every `Transport` must do, as cases that any test runner can run: `for (const { name, run } of transportConformance(...)) it(name, run)`.
 * They run over real sockets against upstreams that say exactly what the case needs, since almost everything that goes wrong between a
 * proxy and an upstream goes wrong in framing, in the order of events, or in how a connection ends.
 */
import assert from 'node:assert/strict'
import type { ConformanceCase } from './case.ts'
import { abortCases } from './transport/aborts.ts'
import { connectingCases } from './transport/connecting.ts'
import { connectionCases } from './transport/connections.ts'
import { contractCases } from './transport/contract.ts'
import { fieldCases } from './transport/fields.ts'
import { flowCases } from './transport/flow.ts'
import { interimCases } from './transport/interims.ts'
import { malformedCases } from './transport/malformed.ts'
import { requestBodyCases } from './transport/request-bodies.ts'
import { responseBodyCases } from './transport/response-bodies.ts'
import { type DeclaredDeviations, type TransportFactory, testCase } from './transport/rig.ts'
import { tunnelCases } from './transport/tunnels.ts'
import { upgradeCases } from './transport/upgrades.ts'

/**
 * @param makeTransport called for each case; must pass on `tls.ca` (PEM to trust) and `tls.insecure` (trust anything)
 * @param declared what this transport says it cannot do; anything not declared is expected
 */
export function transportConformance(makeTransport: TransportFactory, declared: DeclaredDeviations = {}): ConformanceCase[] {
  return [
    ...contractCases(makeTransport),
    ...fieldCases(makeTransport, declared),
    ...requestBodyCases(makeTransport, declared),
    ...responseBodyCases(makeTransport),
    ...interimCases(makeTransport),
    ...connectionCases(makeTransport),
    ...connectingCases(makeTransport),
    ...flowCases(makeTransport),
    ...abortCases(makeTransport),
    ...malformedCases(makeTransport),
    ...(declared.upgrade === false ? noUpgrade(makeTransport) : [...upgradeCases(makeTransport), ...tunnelCases(makeTransport)]),
  ]
}

function noUpgrade(makeTransport: TransportFactory): ConformanceCase[] {
  return [testCase('there is no upgrade, as declared', makeTransport, async ({ transport }) => assert.equal(transport.upgrade, undefined))]
}
