"""The Flask app that receives webhooks, and nothing else."""

import flask
from shop import engine

from durable.web import create_blueprint

app = flask.Flask("webhooks")
app.register_blueprint(create_blueprint(engine))
