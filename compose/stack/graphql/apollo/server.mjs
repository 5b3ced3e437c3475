// A subgraph of Apollo Federation over the tables of the tests: `server.mjs <database URL> <port>`.
// Every object has a key, and `_entities` answers by it.

import { ApolloServer } from '@apollo/server'
import { startStandaloneServer } from '@apollo/server/standalone'
import { buildSubgraphSchema } from '@apollo/subgraph'
import graphql from 'graphql'
import pg from 'pg'

const typeDefs = graphql.parse(`
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key"])

  type Query {
    movie(id: ID!): Movie
    movies(ids: [ID!]!): [Movie]!
  }

  type Movie @key(fields: "id") {
    id: ID!
    title: String!
    year: Int
    score: Float
    distributor: Distributor
    cast: [Credit!]!
    genres: [Genre!]!
    awards: [Award!]!
    screenings(first: Int): [Screening!]!
    screeningCount: Int!
  }

  type Credit @key(fields: "movieId talentId") {
    movieId: ID!
    talentId: ID!
    role: String!
    movie: Movie!
    talent: Talent!
  }

  type Talent @key(fields: "id") {
    id: ID!
    name: String!
    born: String
    movies: [Movie!]!
  }

  type Genre @key(fields: "code") {
    code: ID!
    label: String!
    movies: [Movie!]!
  }

  type Distributor @key(fields: "id") {
    id: ID!
    name: String!
    movies: [Movie!]!
  }

  type Award @key(fields: "id") {
    id: ID!
    title: String!
    movie: Movie!
    talent: Talent
  }

  type Screening @key(fields: "id") {
    id: ID!
    startsAt: String!
    hall: String!
    movie: Movie!
  }
`)

const [connectionString, port] = process.argv.slice(2)
const pool = new pg.Pool({ connectionString, max: 8 })

const many = async (text, ...values) => (await pool.query(text, values)).rows
const one = async (text, ...values) => (await many(text, ...values))[0] ?? null

const movies = 'SELECT movie.id::text, title, year, score::float8, distributor_id FROM movie'
const credits = 'SELECT movie_id::text AS "movieId", talent_id::text AS "talentId", role FROM movie_talent'
const talents = 'SELECT id::text, name, born::text FROM talent'
const genres = 'SELECT code, label FROM genre'
const distributors = 'SELECT id::text, name FROM distributor'
const awards = 'SELECT id::text, title, movie_id, talent_id FROM award'
const screenings = 'SELECT id::text, starts_at, hall, movie_id FROM screening'

const movie = (id) => one(`${movies} WHERE id = $1`, id)
const talent = (id) => one(`${talents} WHERE id = $1`, id)

const resolvers = {
  Query: {
    movie: (_, { id }) => movie(id),
    movies: async (_, { ids }) => {
      const found = await many(`${movies} WHERE id = ANY($1::bigint[])`, ids)
      const byId = new Map(found.map((row) => [row.id, row]))
      return ids.map((id) => byId.get(id) ?? null)
    },
  },
  Movie: {
    __resolveReference: ({ id }) => movie(id),
    distributor: (row) => one(`${distributors} WHERE id = $1`, row.distributor_id),
    cast: ({ id }) => many(`${credits} WHERE movie_id = $1 ORDER BY talent_id`, id),
    genres: ({ id }) => many(`${genres} JOIN movie_genre ON genre_code = code WHERE movie_id = $1 ORDER BY code`, id),
    awards: ({ id }) => many(`${awards} WHERE movie_id = $1 ORDER BY award.id`, id),
    screenings: ({ id }, { first }) =>
      many(`${screenings} WHERE movie_id = $1 ORDER BY starts_at, screening.id LIMIT $2`, id, first),
    screeningCount: async ({ id }) =>
      (await one('SELECT count(*)::int AS number FROM screening WHERE movie_id = $1', id)).number,
  },
  Credit: {
    __resolveReference: ({ movieId, talentId }) =>
      one(`${credits} WHERE movie_id = $1 AND talent_id = $2`, movieId, talentId),
    movie: ({ movieId }) => movie(movieId),
    talent: ({ talentId }) => talent(talentId),
  },
  Talent: {
    __resolveReference: ({ id }) => talent(id),
    movies: ({ id }) => many(`${movies} JOIN movie_talent ON movie_id = movie.id WHERE talent_id = $1`, id),
  },
  Genre: {
    __resolveReference: ({ code }) => one(`${genres} WHERE code = $1`, code),
    movies: ({ code }) => many(`${movies} JOIN movie_genre ON movie_id = movie.id WHERE genre_code = $1`, code),
  },
  Distributor: {
    __resolveReference: ({ id }) => one(`${distributors} WHERE id = $1`, id),
    movies: ({ id }) => many(`${movies} WHERE distributor_id = $1`, id),
  },
  Award: {
    __resolveReference: ({ id }) => one(`${awards} WHERE id = $1`, id),
    movie: (row) => movie(row.movie_id),
    talent: (row) => talent(row.talent_id),
  },
  Screening: {
    __resolveReference: ({ id }) => one(`${screenings} WHERE id = $1`, id),
    startsAt: (row) => row.starts_at.toISOString(),
    movie: (row) => movie(row.movie_id),
  },
}

const server = new ApolloServer({ schema: buildSubgraphSchema([{ typeDefs, resolvers }]) })
await startStandaloneServer(server, { listen: { host: '127.0.0.1', port: Number(port) } })
