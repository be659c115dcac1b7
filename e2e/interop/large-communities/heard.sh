# What ExaBGP says of its session, one JSON object a line. The shell stays, and with it standard output, whose end would be taken for a death.
cat >>RUN/heard.json
:
