/**
 * A certificate for localhost and 127.0.0.1 that vouches for itself, until 2126. Written out, since Node makes no certificates and the kit's
 * are all issued by an authority; the key protects nothing.
 */
import { createPrivateKey } from 'node:crypto'
import type { Certificate } from '@weir/testing'

const key = createPrivateKey({
  format: 'jwk',
  key: {
    kty: 'EC',
    crv: 'P-256',
    x: 'gIOwCBytIf0U_SH5Z51u-_ZDvxYG3Dio-X6Iln4hoyo',
    y: 'y1mcU-3lqP8kZ5JeCot3ZjA9iJqRHkgIK4Km-g6NLGA',
    d: '7VcqEGGus_QyEs1cTuy_QLgxViWFnTsduZrHpFpvkUM',
  },
})

const der = [
  'MIIBmzCCAUGgAwIBAgIUJp9SEY/S+n5cjqw7fIPj+YG2oOgwCgYIKoZIzj0EAwIw',
  'FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMDE4NDcxNVoYDzIxMjYxMDI3',
  'MTg0NzE1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO',
  'PQMBBwNCAASAg7AIHK0h/RT9IflnnW779kO/FgbcOKj5foiWfiGjKstZnFPt5aj/',
  'JGeSXgqLd2YwPYiakR5ICCuCpvoOjSxgo28wbTAdBgNVHQ4EFgQUQKZSGl0q9oQk',
  'ClGvzzPU8yFn+/EwHwYDVR0jBBgwFoAUQKZSGl0q9oQkClGvzzPU8yFn+/EwDwYD',
  'VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI',
  'zj0EAwIDSAAwRQIgajbCtcIBNNOwMPZWbJZjm1LjikGXSFTsOx1vKtzRovkCIQCx',
  'MXQrJ3ZYhCfFv6F86AJzGZcBsPIIXVz2s3nOdjbsqA==',
]

export const selfSigned: Certificate = {
  key: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
  cert: `-----BEGIN CERTIFICATE-----\n${der.join('\n')}\n-----END CERTIFICATE-----\n`,
}
