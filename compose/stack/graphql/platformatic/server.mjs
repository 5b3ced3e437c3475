// Platformatic's SQL plugins over every table of a database: `server.mjs <database URL> <port>`.

import fastify from 'fastify'
import graphql from '@platformatic/sql-graphql'
import mapper from '@platformatic/sql-mapper'

const [connectionString, port] = process.argv.slice(2)
const app = fastify({ logger: { level: 'warn' } })
app.register(mapper, { connectionString, log: app.log })
app.register(graphql, { graphiql: false })
await app.listen({ host: '127.0.0.1', port: Number(port) })
